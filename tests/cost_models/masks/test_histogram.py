"""Document lengths drawn from a histogram."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.masks import parse_mask
from cost_models.masks.histogram import Histogram, draw_lengths, parse_histogram
from traces.errors import InputError

TEXT = "# ProLong-like\nlow,high,count\n16,64,3\n64,1024,1\n"


@given(st.integers(1, 5000), st.integers(0, 2**32))
def test_lengths_fill_the_sequence_from_the_bins(seq_len: int, seed: int) -> None:
    lengths = draw_lengths(parse_histogram(TEXT), seq_len, seed)
    assert sum(lengths) == seq_len
    assert min(lengths) > 0
    assert all(16 <= length < 1024 for length in lengths[:-1])
    assert lengths == draw_lengths(parse_histogram(TEXT), seq_len, seed)


def test_bins_are_drawn_by_weight_and_lengths_uniformly() -> None:
    lengths = np.array(draw_lengths(parse_histogram(TEXT), 4_000_000, seed=1)[:-1])
    small = lengths < 64
    assert small.mean() == pytest.approx(0.75, abs=0.01)
    assert lengths[small].mean() == pytest.approx(39.5, rel=0.02)
    assert lengths[~small].mean() == pytest.approx(543.5, rel=0.03)


def test_seeds_differ() -> None:
    histogram = Histogram((10,), (100,), (1.0,))
    assert draw_lengths(histogram, 1000, 0) != draw_lengths(histogram, 1000, 1)


def test_a_mask_of_drawn_documents(tmp_path: Path) -> None:
    (tmp_path / "bins.csv").write_text(TEXT)
    mask = parse_mask(f"document:histogram=@{tmp_path}/bins.csv,seed=3,causal=true", 4096)
    lengths = draw_lengths(parse_histogram(TEXT), 4096, 3)
    assert mask.is_causal
    assert mask == parse_mask(f"document:lengths={'+'.join(map(str, lengths))},causal=true", 4096)
    assert mask == parse_mask(str(mask), 4096), "the name has the lengths"
    assert parse_mask(f"share-question:histogram=@{tmp_path}/bins.csv", 4096).area(4096) > 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("low high count", "is empty"),
        ("1 2", "malformed: got 1 2, expected low, high and count"),
        ("1 2 x", "malformed"),
        ("4 4 1", "has no such bin: got 4 4 1"),
        ("0 4 1", "has no such bin"),
        ("1 4 -1", "has no such bin"),
        ("1 4 inf", "has no such bin"),
        ("1 4 0", "is empty"),
    ],
)
def test_bad_histograms(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_histogram(text)


def test_bad_uses(tmp_path: Path) -> None:
    (tmp_path / "bins.csv").write_text(TEXT)
    name = f"document:histogram=@{tmp_path}/bins.csv"
    for text, seq_len, words in (
        (name, None, "draws its lengths for a sequence length"),
        (f"{name},lengths=4", 4, "both lengths and a histogram"),
        ("document:histogram=bins.csv", 4, "is no file: got bins.csv"),
        ("document:histogram=@/nowhere", 4, "document lengths .* cannot be read"),
        (f"{name},seed=-1", 4, "seed"),
    ):
        with pytest.raises(InputError, match=words):
            parse_mask(text, seq_len)

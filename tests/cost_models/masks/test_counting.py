"""Pairs are counted exactly, whatever the ranges, and without looking at tokens."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.masks import Block, Mask, TokenRange, count_pairs, count_pairs_array, parse_mask
from cost_models.masks.blocks import BlockColumns
from cost_models.masks.counting import count_in_band, count_in_band_array, count_in_strided_band, floor_sum
from tests.cost_models.masks.examples import count_slowly, disjoint_ranges, document_lengths, masks_and_lengths

small = st.integers(0, 12)
signed = st.integers(-20, 20)


@given(small, small, signed, signed)
def test_a_band_of_a_grid(rows: int, columns: int, lo: int, hi: int) -> None:
    expected = sum(lo <= i - j <= hi for i in range(rows) for j in range(columns))
    assert count_in_band(rows, columns, lo, hi) == expected
    arrays = (np.array([value]) for value in (rows, columns, lo, hi))
    assert count_in_band_array(*arrays).tolist() == [expected]


@given(small, small, st.integers(1, 5), st.integers(1, 5), signed, signed)
def test_a_band_of_unequal_strides(rows: int, columns: int, s: int, t: int, lo: int, hi: int) -> None:
    expected = sum(lo <= s * i - t * j <= hi for i in range(rows) for j in range(columns))
    assert count_in_strided_band(rows, columns, s, t, lo, hi) == expected


@given(st.integers(0, 30), st.integers(1, 30), st.integers(0, 60), st.integers(0, 60))
def test_floor_sum(terms: int, divisor: int, slope: int, offset: int) -> None:
    assert floor_sum(terms, divisor, slope, offset) == sum((slope * i + offset) // divisor for i in range(terms))


@given(st.data(), masks_and_lengths())
def test_random_ranges_of_any_stride(data: st.DataObject, case: tuple[Mask, int]) -> None:
    mask, seq_len = case
    # Ranges may reach beyond the sequence: no token there is allowed.
    token_range = st.builds(TokenRange, st.integers(0, seq_len), st.integers(0, seq_len + 4), st.integers(1, 5))
    q, k = data.draw(st.lists(token_range, max_size=4)), data.draw(st.lists(token_range, max_size=4))
    assert mask.count_pairs(q, k, seq_len) == count_slowly(mask, q, k, seq_len)


@given(st.data(), st.integers(1, 3), st.integers(1, 3))
def test_many_documents_and_many_ranges(data: st.DataObject, q_stride: int, k_stride: int) -> None:
    """Enough of both that the indexed way is taken."""
    seq_len = 240
    lengths = "+".join(map(str, data.draw(document_lengths(seq_len, longest=6))))
    kind = data.draw(st.sampled_from(["document", "share-question", "causal-blockwise"]))
    mask = parse_mask(f"{kind}:lengths={lengths}", seq_len)
    q, k = data.draw(disjoint_ranges(seq_len, q_stride)), data.draw(disjoint_ranges(seq_len, k_stride))
    assert mask.count_pairs(q, k, seq_len) == count_slowly(mask, q, k, seq_len)


@given(st.data(), masks_and_lengths(), st.integers(1, 3), st.integers(0, 40))
def test_law_counts_add_over_disjoint_ranges(
    data: st.DataObject, case: tuple[Mask, int], stride: int, edge: int
) -> None:
    mask, seq_len = case
    q, k = data.draw(disjoint_ranges(seq_len, stride)), data.draw(disjoint_ranges(seq_len, stride))
    whole = mask.count_pairs(q, k, seq_len)
    assert whole == sum(mask.count_pairs([one], [other], seq_len) for one in q for other in k)
    below, above = TokenRange(0, min(edge, seq_len)), TokenRange(min(edge, seq_len), seq_len)
    parts = mask.count_pairs([below], k, seq_len) + mask.count_pairs([above], k, seq_len)
    assert mask.count_pairs([TokenRange(0, seq_len)], k, seq_len) == parts


@given(st.data(), masks_and_lengths(), st.integers(1, 4))
def test_arrays_count_as_numbers_do(data: st.DataObject, case: tuple[Mask, int], stride: int) -> None:
    mask, seq_len = case
    token = st.integers(0, seq_len)
    bounds = data.draw(st.lists(st.tuples(token, token, token, token), min_size=1, max_size=6))
    blocks = mask.blocks(seq_len)
    columns = np.array(bounds).T
    for block in blocks:
        ranges = [(TokenRange(a, b, stride), TokenRange(c, d, stride)) for a, b, c, d in bounds]
        expected = [count_pairs(block, q, k) for q, k in ranges]
        assert count_pairs_array(block, *columns, stride).tolist() == expected
        repeated = BlockColumns.of(blocks).take(np.full(len(bounds), blocks.index(block)))
        strides = np.full(len(bounds), stride)
        assert count_pairs_array(repeated, *columns, strides).tolist() == expected


@pytest.mark.parametrize("lo", [None, 0, -(1 << 30)])
def test_arrays_do_not_overflow_at_their_largest(lo: int | None) -> None:
    n = 1 << 30
    block = Block(0, n, 0, n, lo=lo)
    zero, full = np.array([0]), np.array([n])
    assert count_pairs_array(block, zero, full, zero, full).tolist() == [block.area]


def test_numbers_are_exact_beyond_64_bits() -> None:
    n = 1 << 39
    assert parse_mask("causal", n).area(n) == n * (n + 1) // 2
    two_documents = parse_mask(f"document:lengths={n // 2}+{n // 2}", n)
    assert two_documents.area(n) == n * n // 2
    quarter = [TokenRange(0, n, 4)]
    assert two_documents.count_pairs(quarter, quarter, n) == n * n // 32


LONG = 10**7
RANK = [TokenRange(5, LONG, 8)]
OTHER = [TokenRange(0, LONG // 16), TokenRange(LONG - LONG // 16, LONG)]


@pytest.mark.parametrize(
    "text",
    [
        "full",
        "causal",
        "sliding-window:window=4096,causal=true",
        "global-sliding:window=4096,global=128",
        "prefix-causal:prefix=12345",
        "document:lengths=" + "+".join(["100000"] * 100),
        "causal-blockwise:lengths=4000000+6000000",
        "block-sparse:block=250000",
    ],
)
def test_ten_million_tokens_are_counted_without_an_array_of_them(text: str) -> None:
    mask = parse_mask(text, LONG)
    tracemalloc.start()
    try:
        counts = [mask.count_pairs(q, k, LONG) for q in (RANK, OTHER) for k in (RANK, OTHER)]
        largest = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert largest < 1_000_000
    assert min(counts) > 0
    assert max(counts) <= mask.area(LONG)


def test_striped_causal_pairs_by_formula() -> None:
    """Ranks r >= t of P: the diagonal counts; r < t: it does not (Striped Attention, arXiv 2311.09431)."""
    c, p = LONG // 8, 8
    mask = parse_mask("causal", LONG)
    for r, t, expected in ((5, 2, c * (c + 1) // 2), (2, 5, c * (c - 1) // 2)):
        assert mask.count_pairs([TokenRange(r, LONG, p)], [TokenRange(t, LONG, p)], LONG) == expected

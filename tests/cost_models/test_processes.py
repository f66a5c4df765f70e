"""Laws of a host of processes: features of what its kernel computes, the fit, jitter, and the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cost_models.kernels import AttentionShape
from cost_models.masks import KernelCall, Segment
from cost_models.process_attention import AttentionFeatures, attention_features
from cost_models.processes import (
    ProcessProfile,
    fit_jitter,
    fit_processes,
    load_processes,
    save_processes,
)
from traces.errors import InputError

SHAPE = AttentionShape(1, 8, 2, 64, 64, "fp32")
FLOP = 256 * 8
WIDTH = 2 * 64 * 8 * 4
"""Bytes of a token's rows of K and V, of all query heads."""


def features(rows: int, columns: int, left: int | None, right: int | None) -> AttentionFeatures:
    return attention_features([KernelCall((Segment(0, rows, 0, columns),), left, right)], SHAPE, "forward")


@pytest.mark.parametrize(
    ("rows", "columns", "right", "scores", "keys", "blocks"),
    [
        (1024, 512, None, 1024 * 512, 4 * 512, 4),
        (512, 512, 0, 512 * 512, 8 * 512, 8),  # one block of keys, all of it
        (1024, 1024, 0, 512 * 512 + 512 * 1024, 6 * 512, 6),
        (128, 700, None, 128 * 700, 4 * 700, 8),
    ],
)
def test_the_kernel_computes_blocks_of_rows_and_512_keys_and_leaves_out_those_beyond_the_diagonal(
    rows: int, columns: int, right: int | None, scores: int, keys: int, blocks: int
) -> None:
    found = features(rows, columns, None, right)
    assert found.flop == scores * FLOP
    assert (found.scores, found.blocks) == (scores * 8, blocks * 8)
    assert (found.packed, found.moved, found.repeated) == (keys * WIDTH, (rows + columns) * WIDTH, columns * WIDTH)
    assert (found.mask, found.masked, found.together, found.given) == (0, 0, 0, 0)


def test_a_window_that_the_kernel_does_not_know_is_a_mask() -> None:
    found = features(1024, 512, None, 0)
    assert found.flop == 1024 * 512 * FLOP
    assert (found.mask, found.masked) == (1024 * 512, 1024 * 512 * 8)


def test_results_of_launches_that_share_rows_are_put_together() -> None:
    both = [KernelCall((Segment(0, 64, columns, columns + 32),), None, None) for columns in (0, 32)]
    assert attention_features(both, SHAPE, "forward").together == 2 * 64 * 8 * 64 * 4
    assert attention_features(both, SHAPE, "backward").together == 2 * 64 * 8 * 64 * 4, "dQ; keys are apart"
    apart = [KernelCall((Segment(rows, rows + 32, 0, 64),), None, None) for rows in (0, 32)]
    assert attention_features(apart, SHAPE, "forward").together == 0
    assert attention_features(apart, SHAPE, "backward").together == 2 * 64 * 2 * 2 * 64 * 4, "dK and dV"


def test_an_output_is_made_for_a_given_delta() -> None:
    call = [KernelCall((Segment(0, 64, 0, 32),), None, None)]
    assert attention_features(call, SHAPE, "backward", given_delta=True).given == 64 * WIDTH / 2
    assert attention_features(call, SHAPE, "backward").given == 0


def test_the_fit_finds_the_law_among_outliers() -> None:
    sizes = np.geomspace(1e4, 1e8, 40)
    samples = [("exchange", (1.0, float(n)), 2e-4 + n * 5e-10) for n in sizes]
    samples[3] = ("exchange", samples[3][1], 1.0)
    overhead, per_byte = fit_processes(samples)["exchange"]
    assert overhead == pytest.approx(2e-4, rel=0.02)
    assert per_byte == pytest.approx(5e-10, rel=0.02)


def test_jitter_is_drawn_from_what_was_measured() -> None:
    table = {"merge": (1e-3,)}
    quantiles = fit_jitter([("merge", (1.0,), 1e-3 * factor) for factor in np.linspace(1, 3, 201)], table)
    profile = ProcessProfile("host", {4: table}, {}, "test", {4: quantiles}, {4: 1.0})
    assert profile.slower(4, "merge", np.array([0.5]))[0] == pytest.approx(2.0, rel=1e-3)
    assert ProcessProfile("host", {4: table}, {}, "test", {4: quantiles}, {4: 0.5}).slower(4, "merge", np.array([0.5]))[
        0
    ] == pytest.approx(2.0**0.5, rel=1e-3)
    assert profile.slower(4, "other", np.array([0.9]))[0] == 1.0


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    profile = ProcessProfile(
        "host", {4: {"exchange": (1e-4, 1e-9)}}, {4: 0.2}, "test", {4: {"exchange": (0.9, 1.5)}}, {4: 0.5}
    )
    save_processes(profile, tmp_path / "profile.json")
    assert load_processes(tmp_path / "profile.json") == profile
    with pytest.raises(InputError, match="other numbers"):
        profile.seconds(3, "exchange", (1.0, 1.0))
    with pytest.raises(InputError, match="no term merge"):
        profile.seconds(4, "merge", (1.0, 1.0))
    for bad in ("{}", "[]", '{"format": 1}', "x", (tmp_path / "profile.json").read_text().replace("0.0001", '"fast"')):
        (tmp_path / "bad.json").write_text(bad)
        with pytest.raises(InputError, match="no process profile"):
            load_processes(tmp_path / "bad.json")


def test_the_median_sample_is_exact_however_the_others_scatter() -> None:
    factors = np.r_[np.full(51, 1.0), np.full(49, 4.0)]
    samples = [("merge", (1.0, n), n * 1e-9 * f) for n, f in zip(np.geomspace(1e5, 1e7, 100), factors, strict=True)]
    table = fit_processes(samples)["merge"]
    ratios = [seconds / np.dot(table, features) for _, features, seconds in samples]
    assert np.median(ratios) == pytest.approx(1, rel=1e-3)

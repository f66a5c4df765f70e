"""Laws of a host of processes: features of what its kernel computes, the fit, jitter, and the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cost_models.kernels import AttentionShape
from cost_models.masks import KernelCall, Segment
from cost_models.processes import (
    ProcessProfile,
    attention_features,
    fit_jitter,
    fit_processes,
    load_processes,
    save_processes,
)
from traces.errors import InputError

SHAPE = AttentionShape(1, 8, 2, 64, 64, "fp32")
FLOP = 256 * 8


def features(rows: int, columns: int, left: int | None, right: int | None) -> tuple[float, ...]:
    return attention_features([KernelCall((Segment(0, rows, 0, columns),), left, right)], SHAPE, "forward")


def test_the_kernel_computes_blocks_of_rows_and_512_keys_and_leaves_out_those_beyond_the_diagonal() -> None:
    repeated = 512 * 128 * 8 * 4
    assert features(1024, 512, None, None) == (1, 1024 * 512 * FLOP, 0, repeated, 4 * 8)
    assert features(512, 512, None, 0) == (1, 512 * 512 * FLOP, 0, repeated, 8 * 8), "one block of keys, all of it"
    assert features(1024, 1024, None, 0) == (1, (512 * 512 + 512 * 1024) * FLOP, 0, 2 * repeated, (2 + 4) * 8)
    assert features(1024, 512, None, 0) == (1, 1024 * 512 * FLOP, 1024 * 512, repeated, 4 * 8), "a masked rectangle"


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

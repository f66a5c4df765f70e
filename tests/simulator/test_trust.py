"""Provenance, extrapolation and the interval around a prediction."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from cost_models.hardware import load_hardware
from cost_models.topology import load_topology
from simulator.engines.traffic import Traffic
from simulator.trust import RELATIVE_ERROR, Trust, link_kinds
from tests.simulator.workloads import small_program, small_setup

NODE = load_topology("dgx-h100", 2)
SOURCES = """
base = "h100-sxm"
[host]
kernel_s = 5e-6
[kernels.flash2.forward]
efficiency = { 128 = 0.4 }
[elementwise.efficiency]
merge = 0.5
[[source]]
terms = ["kernels.flash2.forward"]
basis = "calibrated"
reference = "run 1"
relative_error = 0.02
[[source]]
terms = ["host.kernel_s"]
basis = "calibrated"
reference = "run 2"
[[source]]
terms = ["elementwise.efficiency"]
basis = "calibrated"
reference = "run 3"
"""


@pytest.fixture
def trust(tmp_path: Path) -> Trust:
    path = tmp_path / "mine.toml"
    path.write_text(SOURCES)
    return Trust(load_hardware(path), "flash2", 128, NODE)


def test_provenance_says_basis_error_and_reference_of_every_term(trust: Trust) -> None:
    found = trust.provenance()
    assert (found["hardware"], found["topology"]) == ("mine", NODE.source)
    terms = found["terms"]
    assert isinstance(terms, dict)
    assert terms["attention forward"] == {"basis": "calibrated", "relative_error": 0.02, "reference": "run 1"}
    assert list(terms) == ["attention forward", "attention backward", "memory-bound kernels", "matrix products",
                           "link nvlink", "host"]  # fmt: skip


def test_a_group_is_as_weak_as_its_weakest_term(trust: Trust) -> None:
    """One pattern was measured, the others are another GPU's."""
    terms = trust.provenance()["terms"]
    assert isinstance(terms, dict)
    assert terms["memory-bound kernels"]["basis"] == "estimated"
    assert terms["host"]["basis"] == "estimated"


def test_link_kinds_are_those_between_ranks() -> None:
    assert link_kinds(load_topology("dgx-h100", 1)) == []
    assert link_kinds(load_topology("dgx-h100", 2, 2)) == ["net"]


def test_interval_combines_terms_by_their_share(trust: Trust) -> None:
    parts = {"compute/attention_forward/forward": 900, "communication/exchange/forward": 100, "idle": 0}
    link = trust.provenance()["terms"]["link nvlink"]["relative_error"]  # type: ignore[index]
    sigma = math.hypot(0.9 * 0.02, 0.1 * link, trust.profile.call_error)
    assert trust.profile.call_error > 0
    found = trust.uncertainty(parts, extrapolated=False)
    assert found.low_s == pytest.approx(1e-6 / (1 + sigma))
    assert found.high_s == pytest.approx(1e-6 * (1 + sigma))
    assert (found.level, found.extrapolated) == (0.9, False)


def test_errors_of_one_term_add_up_and_extrapolation_widens(trust: Trust) -> None:
    split = {"compute/attention_forward/forward": 500, "compute/attention_forward/backward": 500}
    backward = RELATIVE_ERROR["estimated"]
    near, calls = trust.uncertainty(split, extrapolated=False), trust.profile.call_error
    assert near.high_s == pytest.approx(1e-6 * (1 + math.hypot(0.5 * 0.02, 0.5 * backward, calls)))
    merges = {"compute/merge/forward": 500, "compute/cast/backward": 500}
    assert trust.uncertainty(merges, extrapolated=False).high_s == pytest.approx(1e-6 * (1 + math.hypot(0.3, calls)))
    assert trust.uncertainty(split, extrapolated=True).high_s > near.high_s


def test_extrapolation_names_what_lies_beyond(trust: Trust) -> None:
    low, high = trust.profile.kernel("flash2").forward.fitted_rows
    assert trust.extrapolations({"forward": (low, high)}) == []
    (text,) = trust.extrapolations({"forward": (low, 2 * high)})
    assert "queries" in text and "flash2 forward" in text
    assert trust.extrapolations({"forward": (low - 1, high)})
    assert replace(trust, head_dim=80).extrapolations({"forward": (low, high)})


@pytest.mark.parametrize(
    ("spec", "rows"),
    [("ring:partition=zigzag", (60, 120)), ("ulysses", (240, 240)), ("ring:partition=striped", (119, 120))],
)
def test_rows_of_calls_are_those_that_kernels_cover(spec: str, rows: tuple[int, int]) -> None:
    setup = small_setup(2)
    traffic = Traffic(setup)
    small_program(spec, setup).replay(traffic)
    assert traffic.rows == {"forward": rows, "backward": rows}


def test_rows_do_not_depend_on_what_was_simulated_before() -> None:
    """Lowerings are shared by all Programs of one mask and partition."""
    setup = small_setup(4)
    alone, after = Traffic(setup), Traffic(setup)
    forward = small_program("ring", setup, "forward").operations
    first = next(operation for operation in forward if operation.kind == "attention_forward")
    alone.operation(first)
    small_program("ring", setup).replay(Traffic(setup))
    after.operation(first)
    assert alone.rows == after.rows == {"forward": (60, 60)}

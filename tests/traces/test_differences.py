"""Differences: they sum to the makespan's, are ranked by cost, and find what was changed."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings

from tests.traces.kineto.places import RECORDED
from tests.traces.strategies import timelines
from tests.traces.synthetic import from_rows, ring_timeline
from traces.difference_report import write_difference_report
from traces.differences import compare_timelines, describe, select_step
from traces.errors import InputError
from traces.kineto import read_recording
from traces.timeline import OperationInfo


@settings(max_examples=60)
@given(a=timelines(), b=timelines())
def test_costs_of_parts_sum_to_the_difference(a, b):
    assume(a.n_ranks == b.n_ranks and b.makespan_ns)
    comparison = compare_timelines(a, b)
    assert sum(part.cost_ns for part in comparison.parts) == b.makespan_ns - a.makespan_ns
    costs = [abs(part.cost_ns) for part in comparison.parts]
    assert costs == sorted(costs, reverse=True)


def test_nothing_differs_from_itself():
    comparison = compare_timelines(ring_timeline(3), ring_timeline(3))
    assert comparison.error == 0
    assert not any(each.cost_ns for each in (*comparison.parts, *comparison.operations))
    assert comparison.overlap[0] == comparison.overlap[1] < 1


def test_a_slower_link_is_what_costs():
    simulated, measured = ring_timeline(4), ring_timeline(4, hop_ns=6_000_000)
    comparison = compare_timelines(simulated, measured)
    assert comparison.parts[0].name.startswith("communication/exchange")
    assert comparison.operations[0].name.startswith("communication/exchange")
    assert comparison.error == pytest.approx((simulated.makespan_ns - measured.makespan_ns) / measured.makespan_ns)
    assert comparison.overlap[1] < comparison.overlap[0]
    assert "communication/exchange" in describe(comparison)


def test_operations_are_aligned_by_kind_and_order():
    """Names and kinds beside do not matter; what only one has stands alone."""
    infos = [
        OperationInfo(0, "a", "gemm", "forward", 0, "compute"),
        OperationInfo(1, "b", "gemm", "forward", 0, "compute"),
        OperationInfo(2, "c", "merge", "forward", 0, "compute"),
    ]
    simulated = from_rows(infos, [(0, 10, 0, 0, 0, 0), (10, 30, 0, 0, 1, 0)], 1)
    measured = from_rows(infos, [(50, 75, 0, 0, 0, 0), (20, 32, 0, 0, 1, 0), (75, 78, 0, 0, 2, 0)], 1)
    found = {
        each.name: (each.simulated_ns, each.measured_ns) for each in compare_timelines(simulated, measured).operations
    }
    assert found == {
        "compute/gemm/forward 0": (10, 12),
        "compute/gemm/forward 1": (20, 25),
        "compute/merge/forward 0": (None, 3),
    }


def test_different_ranks_and_nothing():
    with pytest.raises(InputError, match="different numbers of ranks: got 2 and 3"):
        compare_timelines(ring_timeline(2), ring_timeline(3))
    with pytest.raises(InputError, match="measured timeline is empty"):
        compare_timelines(ring_timeline(2), from_rows([], [], 2))


def test_the_fastest_step_is_chosen_unless_named():
    read = read_recording(RECORDED / "h100-kernels.json.gz")
    chosen = select_step(read)
    assert {chosen.operations[o].step for o in chosen.operation} == {3}
    assert {chosen.operations[o].step for o in select_step(read, "2").operation} == {2}
    assert chosen.makespan_ns < 3_500_000
    with pytest.raises(InputError, match="no such step: got 9, expected 2, 3"):
        select_step(read, "9")


def test_both_timelines_are_in_one_page(tmp_path):
    a, b = ring_timeline(2), ring_timeline(2, hop_ns=4_000_000)
    write_difference_report(tmp_path / "d.html", compare_timelines(a, b), a, b)
    text = (tmp_path / "d.html").read_text()
    assert text.count("Plotly.newPlot") == 2
    assert all(f'aria-label="{name}"' in text for name in ("Simulated", "Measured"))

"""Our traces as Holistic Trace Analysis reads them: its answers are ours."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from simulator.program.setup import Setup
from tests.simulator.costs import RoundCosts, Traced, run_traced
from tests.simulator.workloads import small_program, small_setup
from traces.metrics import busy_intervals, busy_ns, overlap_ns
from traces.perfetto import write_traces

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from hta.trace_analysis import TraceAnalysis

pytestmark = pytest.mark.filterwarnings("ignore")

COSTS = {"host_us": 8, "compute_us": 600, "communication_us": 1000}
"""Long enough for HTA, which cuts every row to whole microseconds."""
CASES = {
    "ring, communication exposed": ("ring", small_setup(4), {"communication_us": 3400}),
    "ring, communication hidden": ("ring", small_setup(4), {}),
    "ring, host too slow": ("ring", small_setup(3), {"host_us": 1200}),
    "double burst": ("burst:ring=double", small_setup(4, ranks_per_node=2), {"communication_us": 2400}),
    "ulysses": ("ulysses", small_setup(4), {}),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Traced, TraceAnalysis]:
    spec, setup, costs = CASES[request.param]
    return _analysed(spec, setup, costs, tmp_path_factory.mktemp("traces") / "t")


def _analysed(spec: str, setup: Setup, costs: dict[str, int], folder: Path) -> tuple[Traced, TraceAnalysis]:
    traced = run_traced(small_program(spec, setup), RoundCosts(setup.n_ranks, **(COSTS | costs)))
    write_traces(traced.timeline, folder, traced.details)
    return traced, TraceAnalysis(trace_dir=str(folder))


def test_temporal_breakdown(case):
    traced, analysis = case
    found = analysis.get_temporal_breakdown(visualize=False).set_index("rank")
    timeline = traced.timeline
    assert sorted(found.index) == list(range(timeline.n_ranks))
    for rank in range(timeline.n_ranks):
        mine = timeline.select(rank=rank)
        span_us = (mine.end_ns.max() - mine.start_ns.min()) / 1000
        busy_us = busy_intervals(timeline, rank, "compute", "communication", "copy").total_ns / 1000
        assert found.loc[rank, "kernel_time(us)"] == pytest.approx(span_us, rel=0.01)
        assert found.loc[rank, "compute_time(us)"] == pytest.approx(busy_ns(timeline, rank, "compute") / 1000, rel=0.01)
        assert found.loc[rank, "idle_time(us)"] == pytest.approx(span_us - busy_us, rel=0.01, abs=0.01 * span_us)


def test_overlap_of_communication_and_computation(case):
    traced, analysis = case
    found = analysis.get_comm_comp_overlap(visualize=False).set_index("rank")["comp_comm_overlap_pctg"]
    for rank in range(traced.timeline.n_ranks):
        ours = 100 * overlap_ns(traced.timeline, rank) / busy_ns(traced.timeline, rank, "communication")
        assert found[rank] == pytest.approx(ours, abs=1)


def test_launches_are_matched_to_kernels(case):
    """HTA joins calls and kernels by correlation: every row has its call, and queues fill while the host is ahead."""
    traced, analysis = case
    stats = analysis.get_cuda_kernel_launch_stats(ranks=[0], visualize=False)[0]
    mine = traced.timeline.rank == 0
    assert len(stats) == mine.sum()
    ahead_us = (traced.timeline.start_ns - traced.details.launches.end_ns)[mine] / 1000
    assert stats["launch_delay"].sum() == pytest.approx(ahead_us.sum(), rel=0.01, abs=3 * len(stats))
    queue = analysis.get_queue_length_summary(ranks=[0])["queue_length"]
    assert queue["count"].sum() == 2 * len(stats)


def test_a_slow_host_is_why_devices_idle(tmp_path):
    _, analysis = _analysed("ring", small_setup(2), {"host_us": 900, "compute_us": 100}, tmp_path / "t")
    idle, _ = analysis.get_idle_time_breakdown(ranks=[0], visualize=False)
    by_cause = idle.groupby("idle_category")["idle_time"].sum()
    assert by_cause["host_wait"] > 0.9 * by_cause.sum()

"""Metrics against a reference that looks at every nanosecond of every rank."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.traces.strategies import timelines
from tests.traces.synthetic import from_rows, ring_timeline
from traces.errors import InputError
from traces.metrics import (
    breakdown,
    busy_ns,
    critical_rank,
    exposed_communication_ns,
    finish_ns,
    overlap_ns,
    phase_split_ns,
)
from traces.timeline import OperationInfo, Timeline

DEVICE = ("compute", "communication", "copy")


def running(timeline: Timeline, rank: int, time_ns: int) -> list[OperationInfo]:
    """Operations that run on a rank in a nanosecond, by category and then in the order of the schedule's labels."""
    rows = [i for i in range(len(timeline)) if timeline.rank[i] == rank]
    return [
        timeline.operations[timeline.operation[i]] for i in rows if timeline.start_ns[i] <= time_ns < timeline.end_ns[i]
    ]


def label(info: OperationInfo) -> str:
    return f"{info.category}/{info.kind}/{info.phase}"


def slow_breakdown(timeline: Timeline, rank: int) -> dict[str, int]:
    order = list(dict.fromkeys(label(info) for info in timeline.operations))
    parts = {name: 0 for category in DEVICE for name in order if name.startswith(category)} | {"idle": 0}
    for time_ns in range(timeline.makespan_ns):
        labels = {label(info) for info in running(timeline, rank, time_ns)}
        parts[next((name for name in parts if name in labels), "idle")] += 1
    return parts


@settings(max_examples=50)
@given(timelines())
def test_breakdown_is_the_reference_and_sums_to_the_makespan(timeline):
    for rank in range(timeline.n_ranks):
        parts = breakdown(timeline, rank)
        assert list(parts.items()) == list(slow_breakdown(timeline, rank).items())
        assert sum(parts.values()) == timeline.makespan_ns


@settings(max_examples=50)
@given(timelines())
def test_busy_and_exposed_count_nanoseconds(timeline):
    for rank in range(timeline.n_ranks):
        per_ns = [{info.category for info in running(timeline, rank, t)} for t in range(timeline.makespan_ns)]
        for category in (*DEVICE, "host"):
            assert busy_ns(timeline, rank, category) == sum(category in each for each in per_ns)
        exposed = sum("communication" in each and "compute" not in each for each in per_ns)
        assert exposed_communication_ns(timeline, rank) == exposed
        both = sum({"communication", "compute"} <= each for each in per_ns)
        assert overlap_ns(timeline, rank) == both


@settings(max_examples=50)
@given(timelines())
def test_exposed_communication_is_what_the_breakdown_says(timeline):
    for rank in range(timeline.n_ranks):
        parts = breakdown(timeline, rank)
        in_parts = sum(value for name, value in parts.items() if name.startswith("communication"))
        assert in_parts == exposed_communication_ns(timeline, rank)


@settings(max_examples=50)
@given(timelines())
def test_critical_rank_is_the_first_that_ends_last(timeline):
    ends = [max(timeline.end_ns[timeline.rank == rank], default=0) for rank in range(timeline.n_ranks)]
    assert finish_ns(timeline).tolist() == ends
    assert critical_rank(timeline) == ends.index(max(ends))


@settings(max_examples=50)
@given(timelines())
def test_phases_last_until_their_last_operation_on_the_critical_rank(timeline):
    rank = critical_rank(timeline)
    last = {"forward": 0, "backward": 0}
    computing: dict[str, set[int]] = {"forward": set(), "backward": set()}
    for row in range(len(timeline)):
        if timeline.rank[row] == rank:
            info = timeline.operations[timeline.operation[row]]
            start_ns, end_ns = int(timeline.start_ns[row]), int(timeline.end_ns[row])
            last[info.phase] = max(last[info.phase], end_ns)
            computing[info.phase].update(range(start_ns, end_ns) if info.category == "compute" else ())
    forward, backward = phase_split_ns(timeline)
    assert forward + backward == timeline.makespan_ns
    if all(computing.values()) and min(computing["backward"]) <= max(computing["forward"]):
        share = len(computing["forward"]) / sum(map(len, computing.values()))
        assert forward == round(timeline.makespan_ns * share), "they take turns"
    else:
        assert forward == last["forward"]


def test_optimizer_belongs_to_neither_phase():
    infos = [
        OperationInfo(0, "attention", "attention_forward", "forward", 0, "compute"),
        OperationInfo(1, "attention", "attention_backward", "backward", 0, "compute"),
        OperationInfo(2, "update", "elementwise", "optimizer", 0, "compute"),
    ]
    timeline = from_rows(infos, [(0, 10, 0, 0, 0, 0), (10, 35, 0, 0, 1, 0), (35, 41, 0, 0, 2, 0)], 1)
    assert phase_split_ns(timeline) == (10, 25)


def test_ring_of_known_times():
    """Two ranks: the slow rank 1 sends 4.62 ms while it computes 3.468 ms, and 11.088 while 8.3232 later."""
    timeline = ring_timeline(2)
    assert exposed_communication_ns(timeline, 0) == 0
    assert exposed_communication_ns(timeline, 1) == (4_620_000 - 3_468_000) + (11_088_000 - 8_323_200)
    assert busy_ns(timeline, 0, "communication") == 2_100_000 + 5_040_000


@pytest.mark.parametrize("rank", [-1, 2])
def test_rank_that_is_not_there(rank):
    with pytest.raises(InputError, match=f"no such rank: got {rank}, expected 0 to 1"):
        breakdown(ring_timeline(2), rank)


def test_category_that_is_not_there():
    with pytest.raises(InputError, match="category is unknown: got comms, expected one of compute"):
        busy_ns(ring_timeline(2), 0, "comms")

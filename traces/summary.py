"""What a trace says: busy, exposed communication, overlap, idle by cause, per rank and step; and the critical path.

    window   a step on the host (ProfilerStep), or the whole trace
    wait     communication before the last rank began it, while nothing is computed: waiting for others, not moving data

All else is as in :mod:`traces.metrics` and :mod:`traces.idle`, within the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from traces.critical_path import CriticalPath, critical_path
from traces.idle import idle_by_cause
from traces.intervals import Intervals, intersect, subtract, unite
from traces.kineto.facts import Window
from traces.kineto.recording import Recording
from traces.metrics import busy_intervals
from traces.timeline import Timeline


@dataclass(frozen=True)
class StepSummary:
    """One rank in one step; nanoseconds.

    Attributes
    ----------
    step : its number, or ``all`` where the trace marks no steps.
    compute_ns, communication_ns : time with at least one row of the category.
    exposed_communication_ns : communication while nothing is computed; ``wait_ns`` of it before the last rank began.
    overlap_ns : communication hidden behind computation.
    copy_ns : copies while nothing is computed or communicated.
    idle_ns : by cause; window = compute + exposed communication + copies + idle.
    """

    rank: int
    step: str
    window_ns: int
    compute_ns: int
    communication_ns: int
    exposed_communication_ns: int
    wait_ns: int
    overlap_ns: int
    copy_ns: int
    idle_ns: dict[str, int]


@dataclass(frozen=True)
class Summary:
    """Of all ranks and steps."""

    steps: tuple[StepSummary, ...]
    path: CriticalPath
    makespan_ns: int
    n_ranks: int
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Plain values, times in seconds."""
        return {
            "n_ranks": self.n_ranks,
            "time_s": self.makespan_ns / 1e9,
            "steps": [_step_json(step) for step in self.steps],
            "critical_path_s": {name: value / 1e9 for name, value in self.path.by_name().items()},
            "critical_path_by_rank_s": {str(rank): value / 1e9 for rank, value in self.path.by_rank().items()},
            "warnings": list(self.warnings),
        }


def summarise(recording: Recording) -> Summary:
    """Summarise a recording."""
    timeline = recording.timeline
    waits = [_wait_intervals(timeline, rank) for rank in range(timeline.n_ranks)]
    steps = [
        _summarise_step(recording, rank, window, waits[rank])
        for rank in range(timeline.n_ranks)
        for window in _windows(recording, rank)
    ]
    path = critical_path(timeline, recording.launches, on_device=recording.on_device)
    return Summary(tuple(steps), path, timeline.makespan_ns, timeline.n_ranks, recording.warnings)


def _windows(recording: Recording, rank: int) -> Sequence[Window]:
    return recording.windows[rank] or [Window("all", 0, recording.timeline.makespan_ns)]


def _summarise_step(recording: Recording, rank: int, window: Window, waiting: Intervals) -> StepSummary:
    timeline = recording.timeline
    inside = Intervals(np.array([window.start_ns]), np.array([window.end_ns]))
    compute, communication, copies = (
        intersect(busy_intervals(timeline, rank, category), inside) for category in ("compute", "communication", "copy")
    )
    exposed = subtract(communication, compute)
    idle = idle_by_cause(
        timeline, rank, recording.launches, inside, syncs=recording.syncs[rank], on_device=recording.on_device
    )
    return StepSummary(
        rank=rank,
        step=window.name,
        window_ns=inside.total_ns,
        compute_ns=compute.total_ns,
        communication_ns=communication.total_ns,
        exposed_communication_ns=exposed.total_ns,
        wait_ns=intersect(exposed, waiting).total_ns,
        overlap_ns=communication.total_ns - exposed.total_ns,
        copy_ns=subtract(subtract(copies, communication), compute).total_ns,
        idle_ns=idle,
    )


def _wait_intervals(timeline: Timeline, rank: int) -> Intervals:
    """Each communication of a rank until the last of the other ranks began it, that did before it ended here."""
    communicates = np.array([info.category == "communication" for info in timeline.operations], dtype=bool)
    rows = np.flatnonzero(communicates[timeline.operation])
    order = rows[np.lexsort((timeline.start_ns[rows], timeline.operation[rows]))]
    operation, start = timeline.operation[order], timeline.start_ns[order]
    mine = order[timeline.rank[order] == rank]
    first = np.searchsorted(operation, timeline.operation[mine], side="left")
    stop = np.searchsorted(operation, timeline.operation[mine], side="right")
    begun = [
        int(start[a + np.searchsorted(start[a:b], end_ns, side="left") - 1])
        for a, b, end_ns in zip(first.tolist(), stop.tolist(), timeline.end_ns[mine].tolist(), strict=True)
    ]
    latest = np.maximum(np.array(begun, dtype=np.int64), timeline.start_ns[mine])
    return unite(Intervals(timeline.start_ns[mine], np.minimum(latest, timeline.end_ns[mine])))


def _step_json(step: StepSummary) -> dict[str, object]:
    times = {name: value for name, value in vars(step).items() if name.endswith("_ns") and name != "idle_ns"}
    return {
        "rank": step.rank,
        "step": step.step,
        **{f"{name.removesuffix('_ns')}_s": value / 1e9 for name, value in times.items()},
        "idle_s": {cause: value / 1e9 for cause, value in step.idle_ns.items()},
    }

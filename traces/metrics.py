"""Where the time of a timeline goes, per rank.

    busy(c)  = length of the union of the rank's rows of category c
    exposed  = length of (communication minus compute): the rank communicates and computes nothing
    overlap  = busy(communication) - exposed
    makespan = compute by kind + exposed communication by kind + exposed copies by kind + idle (none of them)

Host rows never count: issuing work is not doing it. Where rows of several kinds overlap, an instant belongs to the
first of them in the order compute, communication, copy, and within one category to the kind that the schedule uses
first, so that the parts are disjoint and sum exactly.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from traces.errors import InputError
from traces.intervals import Intervals, subtract, unite
from traces.timeline import CATEGORIES, Timeline


def busy_ns(timeline: Timeline, rank: int, category: str) -> int:
    """Time in which a rank runs at least one row of a category, in nanoseconds."""
    return busy_intervals(timeline, rank, category).total_ns


def busy_intervals(timeline: Timeline, rank: int, *categories: str) -> Intervals:
    """Disjoint intervals in which a rank runs at least one row of the categories."""
    unknown = next((category for category in categories if category not in CATEGORIES), None)
    if unknown is not None:
        raise InputError("category is unknown", got=unknown, expected="one of " + ", ".join(CATEGORIES))
    wanted = np.array([info.category in categories for info in timeline.operations], dtype=bool)
    return _intervals_of(timeline, rank, wanted)


def exposed_communication_intervals(timeline: Timeline, rank: int) -> Intervals:
    """Disjoint intervals in which a rank communicates and computes nothing."""
    compute = busy_intervals(timeline, rank, "compute")
    return subtract(busy_intervals(timeline, rank, "communication"), compute)


def exposed_communication_ns(timeline: Timeline, rank: int) -> int:
    """Communication of a rank while that rank computes nothing, in nanoseconds."""
    return exposed_communication_intervals(timeline, rank).total_ns


def overlap_ns(timeline: Timeline, rank: int) -> int:
    """Communication of a rank that its computation hides, in nanoseconds."""
    return busy_ns(timeline, rank, "communication") - exposed_communication_ns(timeline, rank)


def finish_ns(timeline: Timeline) -> NDArray[np.int64]:
    """End of each rank's last row, in nanoseconds; 0 for a rank without rows."""
    finish = np.zeros(timeline.n_ranks, dtype=np.int64)
    np.maximum.at(finish, timeline.rank, timeline.end_ns)
    return finish


def critical_rank(timeline: Timeline) -> int:
    """The rank that finishes last; of several, the lowest."""
    return int(np.argmax(finish_ns(timeline)))


def breakdown(timeline: Timeline, rank: int) -> dict[str, int]:
    """Disjoint parts of the makespan on one rank, in nanoseconds.

    Returns
    -------
    dict
        Keys ``category/kind/phase`` in the order of the schedule, and last ``idle``. Communication and copies are
        what is exposed of them. The values sum to the makespan.

    >>> from traces.timeline import OperationInfo
    >>> infos = (OperationInfo(0, "attention", "attention_forward", "forward", 0, "compute"),
    ...          OperationInfo(1, "send KV", "exchange", "forward", 0, "communication"))
    >>> breakdown(Timeline(infos, ("compute", "send"), 1, [1, 0], [5, 7], [0, 0], [0, 1], [0, 1], [0, 8]), 0)
    {'compute/attention_forward/forward': 4, 'communication/exchange/forward': 3, 'idle': 0}
    """
    labels = [f"{info.category}/{info.kind}/{info.phase}" for info in timeline.operations]
    label_of = np.array(labels, dtype=object)
    parts: dict[str, int] = {}
    covered = Intervals(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    for label in _in_order_of_category(labels):
        both = unite(_joined(covered, _intervals_of(timeline, rank, label_of == label)))
        parts[label] = both.total_ns - covered.total_ns
        covered = both
    return parts | {"idle": timeline.makespan_ns - covered.total_ns}


def phase_split_ns(timeline: Timeline) -> tuple[int, int]:
    """Forward and backward time on the critical rank, in nanoseconds.

    Forward lasts until that rank's last forward operation ends, backward from then until its last backward operation
    ends; what is left of the makespan belongs to neither. Where they take turns (microbatches), the time until the last
    of both ends is shared out by how long the rank is busy with each.
    """
    rank = critical_rank(timeline)
    forward, both = _last_end_ns(timeline, rank, "forward"), _last_end_ns(timeline, rank, "backward")
    both = max(forward, both)
    computing = [_computing(timeline, rank, phase) for phase in ("forward", "backward")]
    if all(len(each.start) for each in computing) and computing[1].start[0] < computing[0].end[-1]:
        busy = [each.total_ns for each in computing]
        forward = round(both * busy[0] / sum(busy))
    return forward, both - forward


def _computing(timeline: Timeline, rank: int, phase: str) -> Intervals:
    """When a rank computes anything of a phase."""
    wanted = np.array([info.phase == phase and info.category == "compute" for info in timeline.operations], dtype=bool)
    return _intervals_of(timeline, rank, wanted)


def _of_phase(timeline: Timeline, phase: str) -> NDArray[np.bool_]:
    return np.array([info.phase == phase for info in timeline.operations], dtype=bool)


def _last_end_ns(timeline: Timeline, rank: int, phase: str) -> int:
    return int(timeline.end_ns[_rows(timeline, rank, _of_phase(timeline, phase))].max(initial=0))


def _in_order_of_category(labels: Iterable[str]) -> list[str]:
    device = (label for label in dict.fromkeys(labels) if not label.startswith("host/"))
    return sorted(device, key=lambda label: CATEGORIES.index(label.split("/")[0]))


def _rows(timeline: Timeline, rank: int, wanted_operations: NDArray[np.bool_]) -> NDArray[np.intp]:
    timeline.check_rank(rank)
    rows = np.flatnonzero(timeline.rank == rank)
    return rows[wanted_operations[timeline.operation[rows]]] if rows.size else rows


def _intervals_of(timeline: Timeline, rank: int, wanted_operations: NDArray[np.bool_]) -> Intervals:
    rows = _rows(timeline, rank, wanted_operations)
    return unite(Intervals(timeline.start_ns[rows], timeline.end_ns[rows]))


def _joined(a: Intervals, b: Intervals) -> Intervals:
    return Intervals(np.concatenate((a.start, b.start)), np.concatenate((a.end, b.end)))

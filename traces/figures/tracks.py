"""A timeline as bars on tracks: a track per (rank, lane), a bar per row, and shading for exposed communication.

The shading lies on the track on which the rank computes, where that track is empty; it is what
:func:`traces.metrics.exposed_communication_intervals` gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from traces.figures.thinning import Bars
from traces.intervals import Intervals, subtract
from traces.metrics import exposed_communication_intervals
from traces.timeline import Timeline

EXPOSED_KIND = ("exposed", "communication")
RANK_GAP = 0.45

Kind = tuple[str, str]


class Track(NamedTuple):
    """A line of the chart, and how far down it is, in tracks."""

    rank: int
    lane: int
    position: float


class Chart(NamedTuple):
    """What a Gantt chart is made of; ``bars.track`` and ``bars.kind`` point into the other two."""

    tracks: list[Track]
    kinds: list[Kind]
    bars: Bars


def lay_out(timeline: Timeline, ranks: Sequence[int]) -> Chart:
    """Tracks and bars of some ranks, and the kinds: (category, kind) as the schedule uses them, last the shading."""
    rows = np.flatnonzero(np.isin(timeline.rank, ranks))
    queue = timeline.rank[rows].astype(np.int64) * len(timeline.lanes) + timeline.lane[rows]
    queues, track = _in_order(timeline, rows, queue)
    tracks = _tracks(queues, len(timeline.lanes))
    kinds = list(dict.fromkeys((info.category, info.kind) for info in timeline.operations))
    number = {kind: i for i, kind in enumerate(kinds)}
    kind_of = np.array([number[info.category, info.kind] for info in timeline.operations], dtype=np.int64)
    bars = Bars(
        track.astype(np.int64),
        kind_of[timeline.operation[rows]],
        timeline.start_ns[rows],
        timeline.end_ns[rows],
        timeline.bytes[rows],
        rows.astype(np.int64),
        np.ones(len(rows), dtype=np.int64),
    )
    shading = [_shading(timeline, tracks, bars, track, len(kinds)) for track in _compute_tracks(timeline, tracks)]
    joined = Bars(*(np.concatenate(columns) for columns in zip(bars, *shading, strict=True)))
    return Chart(tracks, [*kinds, EXPOSED_KIND], joined)


def _in_order(
    timeline: Timeline, rows: NDArray[np.int64], queue: NDArray[np.int64]
) -> tuple[list[int], NDArray[np.int64]]:
    """Queues rank by rank, lanes that compute first; and of each row, which it is in."""
    queues, track = np.unique(queue, return_inverse=True)
    computes = np.array([info.category == "compute" for info in timeline.operations], dtype=bool)
    lanes = np.unique(timeline.lane[computes[timeline.operation]])
    rank, lane = np.divmod(queues, len(timeline.lanes))
    order = np.lexsort((lane, ~np.isin(lane, lanes), rank))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return queues[order].tolist(), place[track]


def _tracks(queues: list[int], n_lanes: int) -> list[Track]:
    pairs = [divmod(queue, n_lanes) for queue in queues]
    ordinal = {rank: i for i, rank in enumerate(dict.fromkeys(rank for rank, _ in pairs))}
    return [Track(rank, lane, i + RANK_GAP * ordinal[rank]) for i, (rank, lane) in enumerate(pairs)]


def _compute_tracks(timeline: Timeline, tracks: list[Track]) -> list[int]:
    """Of each rank the first track on which it computes; of a rank that never does, its first track."""
    computes = np.array([info.category == "compute" for info in timeline.operations], dtype=bool)
    rows = np.flatnonzero(computes[timeline.operation])
    computing = set(zip(timeline.rank[rows].tolist(), timeline.lane[rows].tolist(), strict=True))
    best: dict[int, int] = {}
    for i in sorted(range(len(tracks)), key=lambda i: tracks[i][:2] not in computing):
        best.setdefault(tracks[i].rank, i)
    return sorted(best.values())


def _shading(timeline: Timeline, tracks: list[Track], bars: Bars, track: int, kind: int) -> Bars:
    exposed = exposed_communication_intervals(timeline, tracks[track].rank)
    own = bars.track == track
    start, end = subtract(exposed, Intervals(bars.start_ns[own], bars.end_ns[own]))
    full = [np.full(len(start), value, dtype=np.int64) for value in (track, kind, 0, -1, 1)]
    return Bars(full[0], full[1], start, end, *full[2:])

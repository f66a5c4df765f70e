"""Gantt chart: a track per (rank, lane), a bar per row of the timeline.

Where a rank communicates and computes nothing, its compute track is shaded: that is the exposed communication which
:mod:`traces.metrics` sums up. Colours belong to kinds of operations, so the legend holds for every figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from traces.display import Unit, format_bytes, format_ns, time_unit
from traces.figures.colours import EXPOSED, colour_of, readable
from traces.figures.style import label_rows, new_figure, safe
from traces.figures.thinning import Shown, thin
from traces.metrics import critical_rank, exposed_communication_intervals
from traces.timeline import CATEGORIES, Timeline

TRACK_PIXELS, BAR_HEIGHT, RANK_GAP = 22, 0.78, 0.45


class Track(NamedTuple):
    """A line of the chart."""

    rank: int
    lane: int
    position: float


class Spans(NamedTuple):
    """Bars of one colour: their tracks' positions, starts and ends."""

    position: NDArray[np.float64]
    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]


def plot_timeline(timeline: Timeline, ranks: Sequence[int] | None = None, max_bars: int = 10_000) -> go.Figure:
    """Draw operations over time.

    Parameters
    ----------
    timeline : what to draw.
    ranks : only these ranks; None for all, or as many as are readable.
    max_bars : most bars to draw; beyond it ranks are left out, and the figure says so.
    """
    shown = thin(timeline, ranks, max_bars)
    tracks = _tracks(timeline, shown)
    unit = time_unit(timeline.makespan_ns)
    height = int(TRACK_PIXELS * (tracks[-1].position + 1)) if tracks else TRACK_PIXELS
    figure = new_figure("Timeline", _note(timeline, shown), height)
    _add_exposed(figure, timeline, tracks, unit)
    _add_kinds(figure, timeline, shown, tracks, unit)
    label_rows(figure, [track.position for track in tracks], _labels(timeline, tracks))
    figure.update_layout(barmode="overlay", bargap=0, dragmode="zoom")
    figure.update_xaxes(title=f"time ({unit[0]})", range=[0, max(timeline.makespan_ns, 1) / unit[1]])
    return figure


def _note(timeline: Timeline, shown: Shown) -> str:
    critical = f"Critical rank {critical_rank(timeline)} finishes at {format_ns(timeline.makespan_ns)}."
    return f"{critical} {shown.note}".rstrip()


def _tracks(timeline: Timeline, shown: Shown) -> list[Track]:
    used = np.unique(np.stack([timeline.rank[shown.rows], timeline.lane[shown.rows]]), axis=1).T.tolist()
    rank_order = {rank: i for i, rank in enumerate(sorted({rank for rank, _ in used}))}
    return [Track(rank, lane, i + RANK_GAP * rank_order[rank]) for i, (rank, lane) in enumerate(used)]


def _labels(timeline: Timeline, tracks: list[Track]) -> list[str]:
    """``rank 3  compute``, the rank only on its first track."""
    labels, last = [], None
    for track in tracks:
        head = f"<b>rank {track.rank}</b>  " if track.rank != last else ""
        labels.append(head + safe(timeline.lanes[track.lane]))
        last = track.rank
    return labels


def _add_exposed(figure: go.Figure, timeline: Timeline, tracks: list[Track], unit: Unit) -> None:
    exposed = [
        (track.position, start_ns, end_ns)
        for track in _compute_tracks(timeline, tracks)
        for start_ns, end_ns in zip(*exposed_communication_intervals(timeline, track.rank), strict=True)
    ]
    if exposed:
        name = "exposed communication"
        bars = _bars(name, EXPOSED, Spans(*(np.array(column) for column in zip(*exposed, strict=True))), unit)
        text = [f"<b>{name}</b><br>{format_ns(end - start)} from {format_ns(start)}" for _, start, end in exposed]
        figure.add_trace(bars.update(hovertext=text, meta={"category": "exposed"}, legendrank=len(CATEGORIES)))


def _compute_tracks(timeline: Timeline, tracks: list[Track]) -> list[Track]:
    """The first track of each rank that computes; of a rank that never does, its first track."""
    computes = np.array([info.category == "compute" for info in timeline.operations], dtype=bool)
    rows = np.flatnonzero(computes[timeline.operation])
    computing = set(zip(timeline.rank[rows].tolist(), timeline.lane[rows].tolist(), strict=True))
    best: dict[int, Track] = {}
    for track in sorted(tracks, key=lambda track: (track.rank, (track.rank, track.lane) not in computing)):
        best.setdefault(track.rank, track)
    return list(best.values())


def _add_kinds(figure: go.Figure, timeline: Timeline, shown: Shown, tracks: list[Track], unit: Unit) -> None:
    position_of = {(track.rank, track.lane): track.position for track in tracks}
    for category, kind in dict.fromkeys((info.category, info.kind) for info in timeline.operations):
        of_kind = np.array([(info.category, info.kind) == (category, kind) for info in timeline.operations])
        rows = shown.rows[of_kind[timeline.operation[shown.rows]]]
        if not rows.size:
            continue
        keys = zip(timeline.rank[rows].tolist(), timeline.lane[rows].tolist(), strict=True)
        positions = np.array([position_of[key] for key in keys])
        spans = Spans(positions, timeline.start_ns[rows], timeline.end_ns[rows])
        bars = _bars(readable(kind), colour_of(kind, category), spans, unit)
        bars.update(meta={"category": category, "kind": kind}, legendrank=CATEGORIES.index(category))
        figure.add_trace(bars.update(hovertext=_hover(timeline, rows)))


def _bars(name: str, colour: str, spans: Spans, unit: Unit) -> go.Bar:
    return go.Bar(
        name=safe(name),
        orientation="h",
        y=spans.position,
        base=spans.start_ns / unit[1],
        x=(spans.end_ns - spans.start_ns) / unit[1],
        width=BAR_HEIGHT,
        marker={"color": colour, "line": {"width": 0}},
        hoverinfo="text",
    )


def _hover(timeline: Timeline, rows: NDArray[np.intp]) -> list[str]:
    infos = [timeline.operations[operation] for operation in timeline.operation[rows]]
    columns = (timeline.rank, timeline.start_ns, timeline.end_ns, timeline.bytes)
    return [
        f"<b>{safe(info.name)}</b><br>rank {rank}, step {info.step}, {safe(info.phase)}"
        f"<br>{format_ns(end_ns - start_ns)} from {format_ns(start_ns)}"
        + (f"<br>{format_bytes(n_bytes)}" if n_bytes else "")
        for info, rank, start_ns, end_ns, n_bytes in zip(infos, *(each[rows].tolist() for each in columns), strict=True)
    ]

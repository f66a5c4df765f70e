"""Gantt chart: a track per (rank, lane), a bar per row of the timeline.

Where a rank communicates and computes nothing, its compute track is shaded: that is the exposed communication which
:mod:`traces.metrics` sums up. Colours belong to kinds of operations, so the legend holds for every figure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from traces.display import Unit, format_bytes, format_ns, time_unit
from traces.figures.colours import EXPOSED, colour_of, group_of, readable
from traces.figures.ranks import choose_ranks
from traces.figures.style import label_rows, make_room_for_legend, new_figure, safe
from traces.figures.thinning import Bars, Thinned, thin
from traces.figures.tracks import EXPOSED_KIND, Chart, Kind, Track, lay_out
from traces.metrics import critical_rank
from traces.timeline import CATEGORIES, Timeline

TRACK_PIXELS, BAR_HEIGHT = 22, 0.78


def plot_timeline(
    timeline: Timeline, ranks: Sequence[int] | None = None, max_bars: int = 10_000, span_ns: int | None = None
) -> go.Figure:
    """Draw operations over time.

    Parameters
    ----------
    timeline : what to draw.
    ranks : only these ranks; None for all, or as many as are readable.
    max_bars : most bars to draw; beyond it neighbours of a kind are merged, and the figure says so.
    span_ns : length of the time axis, for figures to be compared; default the makespan.

    Raises
    ------
    InputError
        Where a rank does not exist, or ``max_bars`` is too small for even one.
    """
    kept = choose_ranks(timeline, ranks, max_bars)
    chart = lay_out(timeline, kept)
    thinned = thin(chart.bars, max_bars, timeline.makespan_ns)
    all_ranks = timeline.n_ranks if ranks is None else len(set(ranks))
    note = _note(timeline, len(kept), all_ranks, len(chart.bars.track), thinned)
    span_ns = max(timeline.makespan_ns if span_ns is None else span_ns, 1)
    unit = time_unit(span_ns)
    height = int(TRACK_PIXELS * (chart.tracks[-1].position + 1)) if chart.tracks else TRACK_PIXELS
    figure = new_figure("Timeline", note, height)
    _add_bars(figure, timeline, chart, thinned.bars, unit)
    label_rows(figure, [track.position for track in chart.tracks], _labels(timeline, chart.tracks))
    figure.update_layout(barmode="overlay", bargap=0, dragmode="zoom")
    figure.update_xaxes(title_text=f"time ({unit[0]})", range=[0, span_ns / unit[1]])
    make_room_for_legend(figure)
    return figure


def _note(timeline: Timeline, n_kept: int, n_wanted: int, n_all_bars: int, thinned: Thinned) -> str:
    parts = [f"Critical rank {critical_rank(timeline)} finishes at {format_ns(timeline.makespan_ns)}."]
    n_drawn = len(thinned.bars.track)
    if n_kept < n_wanted:
        parts.append(f"Showing {n_kept} of {n_wanted} ranks (first, critical, last and between).")
    if n_drawn < n_all_bars:
        parts.append(
            f"{n_all_bars:,} bars are merged into {n_drawn:,}: neighbours of a kind within "
            f"{format_ns(thinned.cell_ns)} are one bar, as long as they are together."
        )
    if len(parts) > 1:
        parts.append("A trace (--trace) holds everything.")
    return " ".join(parts)


def _labels(timeline: Timeline, tracks: list[Track]) -> list[str]:
    """``rank 3  compute``, the rank only on its first track."""
    labels, last = [], None
    for track in tracks:
        head = f"<b>rank {track.rank}</b>  " if track.rank != last else ""
        labels.append(head + safe(timeline.lanes[track.lane]))
        last = track.rank
    return labels


def _add_bars(figure: go.Figure, timeline: Timeline, chart: Chart, bars: Bars, unit: Unit) -> None:
    """A trace per kind, the shading under the rest."""
    positions = np.array([track.position for track in chart.tracks])
    named: set[str] = set()
    for number in (len(chart.kinds) - 1, *range(len(chart.kinds) - 1)):
        chosen = Bars(*(column[bars.kind == number] for column in bars))
        if not len(chosen.track):
            continue
        category, kind = chart.kinds[number]
        shading = (category, kind) == EXPOSED_KIND
        group = _name(chart.kinds[number]) if shading else group_of(kind)
        figure.add_bar(
            name=safe(group),
            legendgroup=group,
            showlegend=group not in named,
            orientation="h",
            y=positions[chosen.track],
            base=chosen.start_ns / unit[1],
            x=(chosen.end_ns - chosen.start_ns) / unit[1],
            width=BAR_HEIGHT,
            marker={"color": EXPOSED if shading else colour_of(kind, category), "line": {"width": 0}},
            hoverinfo="text",
            hovertext=_hover(timeline, chart, chosen),
            meta={"category": category, "kind": kind},
            legendrank=len(CATEGORIES) if shading else CATEGORIES.index(category),
        )
        named.add(group)


def _name(kind: Kind) -> str:
    return "exposed communication" if kind == EXPOSED_KIND else readable(kind[1])


def _hover(timeline: Timeline, chart: Chart, bars: Bars) -> list[str]:
    return [
        _head(timeline, chart, *place)
        + f"<br>{format_ns(end_ns - start_ns)} from {format_ns(start_ns)}"
        + (f"<br>{format_bytes(n_bytes)}" if n_bytes else "")
        for *place, start_ns, end_ns, n_bytes in zip(
            *(column.tolist() for column in (bars.track, bars.kind, bars.row, bars.rows)),
            *(column.tolist() for column in (bars.start_ns, bars.end_ns, bars.bytes)),
            strict=True,
        )
    ]


def _head(timeline: Timeline, chart: Chart, track: int, kind: int, row: int, rows: int) -> str:
    where = f"rank {chart.tracks[track].rank}"
    if rows > 1:
        return f"<b>{rows:,} × {safe(_name(chart.kinds[kind]))}</b><br>{where}"
    if row < 0:
        return f"<b>{_name(chart.kinds[kind])}</b><br>{where}"
    info = timeline.operations[timeline.operation[row]]
    return f"<b>{safe(info.name)}</b><br>{where}, step {info.step}, {safe(info.phase)}"

"""Schedules side by side: where the critical rank's time goes.

A bar of the breakdown is as long as the makespan: its parts are the disjoint ones of
:func:`traces.metrics.breakdown`, communication being what is exposed of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from traces.display import Unit, format_ns, time_unit
from traces.figures.colours import IDLE, colour_of, group_of, leader_of, readable
from traces.figures.style import (
    BAR_HEIGHT,
    add_lengths,
    label_rows,
    make_room_for_legend,
    new_figure,
    row_pixels,
    safe,
    wrapped_name,
)

# A share in words only in segments that are wide enough for it at 800 pixels.
LABEL_FROM = 0.08
LISTED = 8

Parts = Mapping[str, int]
Segment = tuple[str, str]


def plot_breakdown(rows: Sequence[Mapping[str, object]]) -> go.Figure:
    """Stacked bars of compute kinds, exposed communication and idle time, one bar per schedule.

    Parameters
    ----------
    rows : ``schedule`` (its name) and ``parts`` (nanoseconds, as :func:`traces.metrics.breakdown` returns them).
    """
    parts = [_parts(row) for row in rows]
    totals_ns = [sum(each.values()) for each in parts]
    unit = time_unit(max(totals_ns, default=0))
    note = "Critical rank; communication is what computation does not hide."
    names = [wrapped_name(str(row["schedule"])) for row in rows]
    figure = new_figure("Where the time goes", note, row_pixels(names) * len(names))
    for segment in _segments(parts):
        figure.add_trace(_segment_bars(segment, parts, unit))
    label_rows(figure, [float(i) for i in range(len(names))], names)
    add_lengths(figure, totals_ns, [format_ns(total) for total in totals_ns], unit)
    figure.update_layout(barmode="stack", legend_traceorder="normal")
    make_room_for_legend(figure)
    return figure


def _parts(row: Mapping[str, object]) -> dict[str, int]:
    parts = row["parts"]
    return {str(key): int(str(value)) for key, value in parts.items()} if isinstance(parts, Mapping) else {}


def _segments(parts: Sequence[Parts]) -> list[Segment]:
    """(category, kind) of all schedules: compute, communication, copies, and last idle."""
    found = dict.fromkeys(_segment_of(key) for each in parts for key, value in each.items() if value)
    order = ["compute", "communication", "copy", "idle"]
    return sorted(found, key=lambda segment: order.index(segment[0]))


def _segment_of(key: str) -> Segment:
    """Category, and the kind whose colour is shown: kinds of a layer are one segment as they are one in the legend."""
    category, _, rest = key.partition("/")
    return category, leader_of(rest.split("/")[0] or category)


def _segment_bars(segment: Segment, parts: Sequence[Parts], unit: Unit) -> go.Bar:
    category, kind = segment
    chosen = [{key: value for key, value in each.items() if _segment_of(key) == segment} for each in parts]
    longest_ns = max(sum(each.values()) for each in parts)
    prefix = "exposed " if category == "communication" else ""
    name = prefix + group_of(kind)
    return go.Bar(
        name=safe(name),
        orientation="h",
        y=list(range(len(parts))),
        x=[sum(each.values()) / unit[1] for each in chosen],
        width=BAR_HEIGHT,
        text=[
            _share_text(sum(each.values()), sum(whole.values()), longest_ns)
            for each, whole in zip(chosen, parts, strict=True)
        ],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        constraintext="none",
        marker={"color": IDLE if category == "idle" else colour_of(kind, category), "line": {"width": 0}},
        hovertext=[_segment_text(name, each, sum(whole.values())) for each, whole in zip(chosen, parts, strict=True)],
        hoverinfo="text",
        meta={"category": category, "kind": kind},
    )


def _share_text(time_ns: int, total_ns: int, longest_ns: int) -> str:
    return f"{time_ns / total_ns:.0%}" if time_ns > LABEL_FROM * longest_ns else ""


def _segment_text(name: str, chosen: Parts, total_ns: int) -> str:
    time_ns = sum(chosen.values())
    parts = [(_part_name(key, name), value) for key, value in chosen.items() if key != "idle"]
    least_ns = sorted((value for _, value in parts), reverse=True)[:LISTED][-1] if parts else 0
    lines = [f"<br>{safe(part)} {format_ns(value)}" for part, value in parts if value >= least_ns][:LISTED]
    share = time_ns / total_ns if total_ns else 0
    return f"<b>{safe(name)}</b><br>{format_ns(time_ns)} ({share:.1%})" + "".join(lines if len(lines) > 1 else ())


def _part_name(key: str, name: str) -> str:
    """The phase, and in a group of kinds which."""
    _, kind, phase = key.split("/")
    own = readable(kind)
    return phase if name.endswith(own) else f"{own}, {phase}"

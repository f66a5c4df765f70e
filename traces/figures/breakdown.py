"""Schedules side by side: where the critical rank's time goes, and which schedule is fastest.

A bar of the breakdown is as long as the makespan: its parts are the disjoint ones of
:func:`traces.metrics.breakdown`, communication being what is exposed of it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from traces.display import Unit, format_ns, time_unit
from traces.figures.colours import IDLE, colour_of, readable
from traces.figures.style import MUTED, label_rows, new_figure, row_pixels, safe, wrapped_name

BAR_HEIGHT, REASON_CHARACTERS = 0.56, 60
EXACT, APPROXIMATE, TOO_LARGE = "#0072B2", "#56B4E9", "#B4BDC9"

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
    _add_lengths(figure, totals_ns, [format_ns(total) for total in totals_ns], unit)
    figure.update_layout(barmode="stack", legend_traceorder="normal")
    return figure


def plot_ranking(rows: Sequence[Mapping[str, object]]) -> go.Figure:
    """Times of schedules with their uncertainty, as ``compare`` returns them: refused ones are listed with the reason.

    Parameters
    ----------
    rows : results (``schedule``, ``time_s``, ``uncertainty``, ``exact``, ``fits``), or ``schedule`` and ``reason``.
    """
    entries = [_entry(i, row) for i, row in enumerate(rows)]
    unit = time_unit(max((entry.high_ns for entry in entries), default=0))
    names = [wrapped_name(str(row["schedule"])) for row in rows]
    figure = new_figure("Ranking", "Time of one call, with its uncertainty.", row_pixels(names) * len(names))
    for name, colour in (("exact", EXACT), ("approximate", APPROXIMATE), ("does not fit in memory", TOO_LARGE)):
        chosen = [entry for entry in entries if entry.status == name]
        if chosen:
            figure.add_trace(_ranking_bars(name, colour, chosen, unit))
    label_rows(figure, [float(i) for i in range(len(names))], names)
    _add_lengths(figure, [entry.high_ns for entry in entries], [entry.text for entry in entries], unit)
    figure.update_layout(barmode="overlay", showlegend=True)
    return figure


class _Entry(NamedTuple):
    row: int
    status: str
    time_ns: float
    low_ns: float
    high_ns: float
    text: str


def _entry(row: int, result: Mapping[str, object]) -> _Entry:
    if "reason" in result:
        reason = textwrap.shorten(str(result["reason"]), REASON_CHARACTERS, placeholder=" …")
        return _Entry(row, "refused", 0, 0, 0, f"<i>refused: {safe(reason)}</i>")
    time_ns = _nanoseconds(result["time_s"])
    uncertainty = result.get("uncertainty")
    likely = uncertainty if isinstance(uncertainty, Mapping) else {"low_s": time_ns / 1e9, "high_s": time_ns / 1e9}
    status = "exact" if result.get("exact", True) else "approximate"
    status = status if result.get("fits", True) else "does not fit in memory"
    low_ns, high_ns = _nanoseconds(likely["low_s"]), _nanoseconds(likely["high_s"])
    return _Entry(row, status, time_ns, low_ns, max(high_ns, time_ns), format_ns(time_ns))


def _nanoseconds(time_s: object) -> float:
    return float(str(time_s)) * 1e9


def _ranking_bars(name: str, colour: str, entries: list[_Entry], unit: Unit) -> go.Bar:
    above = [(entry.high_ns - entry.time_ns) / unit[1] for entry in entries]
    below = [max(entry.time_ns - entry.low_ns, 0) / unit[1] for entry in entries]
    return go.Bar(
        name=name,
        orientation="h",
        y=[entry.row for entry in entries],
        x=[entry.time_ns / unit[1] for entry in entries],
        width=BAR_HEIGHT,
        marker={"color": colour},
        error_x={"type": "data", "array": above, "arrayminus": below, "symmetric": False, "thickness": 1.5, "width": 4},
        hovertext=[f"<b>{entry.text}</b><br>{_likely(entry)}" for entry in entries],
        hoverinfo="text",
    )


def _likely(entry: _Entry) -> str:
    return f"{format_ns(entry.low_ns)} to {format_ns(entry.high_ns)}"


def _parts(row: Mapping[str, object]) -> dict[str, int]:
    parts = row["parts"]
    return {str(key): int(str(value)) for key, value in parts.items()} if isinstance(parts, Mapping) else {}


def _segments(parts: Sequence[Parts]) -> list[Segment]:
    """(category, kind) of all schedules: compute, communication, copies, and last idle."""
    found = dict.fromkeys(_segment_of(key) for each in parts for key, value in each.items() if value)
    order = ["compute", "communication", "copy", "idle"]
    return sorted(found, key=lambda segment: order.index(segment[0]))


def _segment_of(key: str) -> Segment:
    category, _, rest = key.partition("/")
    return category, rest.split("/")[0] or category


def _segment_bars(segment: Segment, parts: Sequence[Parts], unit: Unit) -> go.Bar:
    category, kind = segment
    chosen = [{key: value for key, value in each.items() if _segment_of(key) == segment} for each in parts]
    prefix = "exposed " if category == "communication" else ""
    name = prefix + readable(kind)
    return go.Bar(
        name=safe(name),
        orientation="h",
        y=list(range(len(parts))),
        x=[sum(each.values()) / unit[1] for each in chosen],
        width=BAR_HEIGHT,
        marker={"color": IDLE if category == "idle" else colour_of(kind, category), "line": {"width": 0}},
        hovertext=[_segment_text(name, each, sum(whole.values())) for each, whole in zip(chosen, parts, strict=True)],
        hoverinfo="text",
        meta={"category": category, "kind": kind},
    )


def _segment_text(name: str, chosen: Parts, total_ns: int) -> str:
    time_ns = sum(chosen.values())
    phases = [f"<br>{safe(key.split('/')[2])} {format_ns(value)}" for key, value in chosen.items() if key != "idle"]
    share = time_ns / total_ns if total_ns else 0
    return f"<b>{safe(name)}</b><br>{format_ns(time_ns)} ({share:.1%})" + "".join(phases if len(phases) > 1 else ())


def _add_lengths(figure: go.Figure, lengths_ns: Sequence[float], texts: Sequence[str], unit: Unit) -> None:
    """The length in words at the end of each bar, and room for it."""
    for position, (length_ns, text) in enumerate(zip(lengths_ns, texts, strict=True)):
        end = length_ns / unit[1]
        figure.add_annotation(
            x=end, y=position, text=text, showarrow=False, xanchor="left", xshift=6, font={"color": MUTED}
        )
    longest = max(lengths_ns, default=0) or 1
    figure.update_xaxes(title=f"time ({unit[0]})", range=[0, 1.16 * longest / unit[1]])

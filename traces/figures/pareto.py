"""Time against memory: a point per candidate, and the front of those that no other beats in both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from traces.display import byte_unit, format_bytes, format_ns, time_unit
from traces.figures.palette import Look, looks_of, short_names
from traces.figures.style import MUTED, log_axis, make_room_for_legend, new_figure, safe

PLOT_PIXELS = 340
WIDE = 10.0
"""Largest over smallest value from which an axis is logarithmic."""

Row = Mapping[str, object]


def plot_pareto(rows: Sequence[Row], front: Sequence[int], capacity_bytes: int | None = None) -> go.Figure:
    """Draw candidates.

    Parameters
    ----------
    rows : ``schedule``, ``time_s``, ``peak_memory_bytes``, and ``candidate`` where that says more than the schedule.
    front : indices of the rows on the front.
    capacity_bytes : memory of the device, drawn as a line where candidates come near it.
    """
    time_name, time_size = time_unit(max((_value(row, "time_s") * 1e9 for row in rows), default=0))
    largest = max((_value(row, "peak_memory_bytes") for row in rows), default=0.0)
    byte_name, byte_size = byte_unit(largest)
    figure = new_figure("Time against memory", _note(rows, front), PLOT_PIXELS)
    if front:
        figure.add_trace(_front_line([rows[i] for i in front], time_size, byte_size))
    names = sorted({str(row["schedule"]) for row in rows})
    labels = short_names(names)
    for name, look in looks_of(names).items():
        own = [(row, i in front) for i, row in enumerate(rows) if row["schedule"] == name]
        figure.add_trace(_points(labels[name], look, own, time_size, byte_size))
    times = [_value(row, "time_s") * 1e9 / time_size for row in rows]
    sizes = [_value(row, "peak_memory_bytes") / byte_size for row in rows]
    figure.update_xaxes(title_text=f"time ({time_name})", **_axis(times, "normal"))
    figure.update_yaxes(title_text=f"peak memory ({byte_name})", **_axis(sizes, "tozero"))
    if capacity_bytes is not None and largest > capacity_bytes / 2:
        _add_capacity(figure, capacity_bytes, byte_size)
    figure.update_layout(showlegend=True)
    make_room_for_legend(figure)
    return figure


def _add_capacity(figure: go.Figure, capacity_bytes: int, byte_size: float) -> None:
    """A line where memory ends; an annotation's place on a logarithmic axis is its logarithm."""
    height = capacity_bytes / byte_size
    place = math.log10(height) if figure.layout.yaxis.type == "log" else height
    figure.add_hline(height, line={"color": MUTED, "dash": "dash"})
    figure.add_annotation(x=1, xref="paper", xanchor="right", y=place, yanchor="bottom", showarrow=False,
                          text=f"device {format_bytes(capacity_bytes)}")  # fmt: skip


def _axis(values: Sequence[float], rangemode: str) -> dict[str, object]:
    """Linear; logarithmic where the largest would press all others against it."""
    if min(values, default=0.0) > 0 and max(values) > WIDE * min(values):
        return log_axis(values)
    return {"rangemode": rangemode}


def _note(rows: Sequence[Row], front: Sequence[int]) -> str:
    approximate = any(not row.get("exact", True) for row in rows)
    other, hollow = ("no other exact one", "; hollow: approximate") if approximate else ("nothing else", "")
    return f"{len(front)} of {len(rows)} are on the front (large markers): {other} is both quicker and smaller{hollow}."


def _front_line(rows: Sequence[Row], time_size: float, byte_size: float) -> go.Scatter:
    ordered = sorted(rows, key=lambda row: _value(row, "time_s"))
    return go.Scatter(
        x=[_value(row, "time_s") * 1e9 / time_size for row in ordered],
        y=[_value(row, "peak_memory_bytes") / byte_size for row in ordered],
        mode="lines",
        name="Pareto front",
        line={"shape": "hv", "color": MUTED, "width": 1.5},
        hoverinfo="skip",
    )


def _points(
    label: str, look: Look, own: Sequence[tuple[Row, bool]], time_size: float, byte_size: float
) -> go.Scatter:  # fmt: skip
    return go.Scatter(
        x=[_value(row, "time_s") * 1e9 / time_size for row, _ in own],
        y=[_value(row, "peak_memory_bytes") / byte_size for row, _ in own],
        mode="markers",
        name=safe(label),
        marker={
            "color": look.colour,
            "symbol": [look.symbol if row.get("exact", True) else f"{look.symbol}-open" for row, _ in own],
            "size": [15 if best else 10 for _, best in own],
            "opacity": 0.9,
        },
        hovertext=[_story(row, best) for row, best in own],
        hoverinfo="text",
    )


def _story(row: Row, best: bool) -> str:
    name = safe(row.get("candidate", row["schedule"]))
    time, memory = format_ns(_value(row, "time_s") * 1e9), format_bytes(_value(row, "peak_memory_bytes"))
    return f"<b>{name}</b><br>{time}, {memory}" + ("<br>on the front" if best else "")


def _value(row: Row, name: str) -> float:
    return float(str(row[name]))

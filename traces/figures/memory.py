"""Memory in use after each operation, as a step curve: it changes when an operation allocates or frees.

Of more changes than `MOST_POINTS`, neighbours are drawn as the largest of them, so that the peak stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from traces.display import byte_unit, format_bytes
from traces.figures.style import MUTED, new_figure, safe

PLOT_PIXELS = 260
# Below this share of the device's memory its limit is only said, not drawn: it would flatten the curve.
DRAW_CAPACITY_FROM = 0.25
MOST_POINTS = 4000
EVENTS = {"+": "when {} is allocated", "-": "when {} is freed"}


def plot_memory(
    curve: Sequence[tuple[str, int]], capacity_bytes: int | None = None, most_bytes: int | None = None
) -> go.Figure:
    """Draw memory over operations.

    Parameters
    ----------
    curve : name of each operation in issue order, and the bytes in use once it has begun.
    capacity_bytes : memory of the device.
    most_bytes : where the axis ends at least, for figures to be compared; default the peak.
    """
    used = [n_bytes for _, n_bytes in curve]
    peak_bytes = max(used, default=0)
    unit, size = byte_unit(max(peak_bytes, most_bytes or 0))
    figure = new_figure("Memory", _note(curve, capacity_bytes), PLOT_PIXELS)
    drawn = _thinned(curve)
    figure.add_trace(
        go.Scatter(
            x=[*[place for place, _ in drawn], len(curve)],
            y=[n_bytes / size for _, (_, n_bytes) in [*drawn, *drawn[-1:]]],
            mode="lines",
            line={"shape": "hv", "color": "#0072B2", "width": 2},
            fill="tozeroy",
            fillcolor="rgba(86, 180, 233, 0.25)",
            hovertext=[f"<b>{safe(name)}</b><br>{format_bytes(n_bytes)}" for _, (name, n_bytes) in drawn],
            hoverinfo="text",
        )
    )
    if capacity_bytes is not None and peak_bytes > DRAW_CAPACITY_FROM * capacity_bytes:
        text = f"device {format_bytes(capacity_bytes)}"
        figure.add_hline(capacity_bytes / size, line={"color": MUTED, "dash": "dash"}, annotation_text=text)
    figure.update_xaxes(title_text="operation, in issue order", showgrid=False)
    figure.update_yaxes(title_text=f"in use ({unit})", rangemode="tozero")
    if most_bytes:
        figure.update_yaxes(range=[0, 1.05 * max(peak_bytes, most_bytes) / size])
    return figure


def _thinned(curve: Sequence[tuple[str, int]]) -> list[tuple[int, tuple[str, int]]]:
    """Where each point lies, and the point: of as many neighbours as must share one, the largest."""
    width = -(-len(curve) // MOST_POINTS) or 1
    points = list(enumerate(curve))
    cells = (points[start : start + width] for start in range(0, len(curve), width))
    return [(cell[0][0], max((each for _, each in cell), key=lambda each: each[1])) for cell in cells]


def _note(curve: Sequence[tuple[str, int]], capacity_bytes: int | None) -> str:
    if not curve:
        return "No operation allocates memory."
    name, peak_bytes = max(curve, key=lambda each: each[1])
    limit = f" of {format_bytes(capacity_bytes)}" if capacity_bytes is not None else ""
    sign, _, what = name.partition(" ")
    event = EVENTS[sign].format(what) if sign in EVENTS else f"at {name}"
    return f"Peak {format_bytes(peak_bytes)}{limit}, {event.replace('_', ' ')}."

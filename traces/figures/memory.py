"""Memory in use after each operation, as a step curve: it changes when an operation allocates or frees."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from traces.display import byte_unit, format_bytes
from traces.figures.style import MUTED, new_figure, safe

PLOT_PIXELS = 260
# Below this share of the device's memory its limit is only said, not drawn: it would flatten the curve.
DRAW_CAPACITY_FROM = 0.25


def plot_memory(curve: Sequence[tuple[str, int]], capacity_bytes: int | None = None) -> go.Figure:
    """Draw memory over operations.

    Parameters
    ----------
    curve : name of each operation in issue order, and the bytes in use once it has begun.
    capacity_bytes : memory of the device.
    """
    names, used = [name for name, _ in curve], [n_bytes for _, n_bytes in curve]
    peak_bytes = max(used, default=0)
    unit, size = byte_unit(peak_bytes)
    figure = new_figure("Memory", _note(names, used, capacity_bytes), PLOT_PIXELS)
    figure.add_trace(
        go.Scatter(
            x=list(range(len(used) + 1)),
            y=[n_bytes / size for n_bytes in [*used, *used[-1:]]],
            mode="lines",
            line={"shape": "hv", "color": "#0072B2", "width": 2},
            fill="tozeroy",
            fillcolor="rgba(86, 180, 233, 0.25)",
            hovertext=[f"<b>{safe(name)}</b><br>{format_bytes(n_bytes)}" for name, n_bytes in curve],
            hoverinfo="text",
        )
    )
    if capacity_bytes is not None and peak_bytes > DRAW_CAPACITY_FROM * capacity_bytes:
        text = f"device {format_bytes(capacity_bytes)}"
        figure.add_hline(capacity_bytes / size, line={"color": MUTED, "dash": "dash"}, annotation_text=text)
    figure.update_xaxes(title="operation, in issue order", showgrid=False)
    figure.update_yaxes(title=f"in use ({unit})", rangemode="tozero")
    return figure


def _note(names: Sequence[str], used: Sequence[int], capacity_bytes: int | None) -> str:
    if not used:
        return "No operation allocates memory."
    peak_bytes = max(used)
    limit = f" of {format_bytes(capacity_bytes)}" if capacity_bytes is not None else ""
    return f"Peak {format_bytes(peak_bytes)}{limit} at {names[used.index(peak_bytes)]}."

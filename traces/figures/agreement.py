"""Predicted against measured times on two logarithmic axes: on the diagonal they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from traces.figures.style import MUTED, log_axis, make_room_for_legend, new_figure, safe

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D31", "#525252")
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up")
HEIGHT_PIXELS = 460


def plot_agreement(points: Sequence[Mapping[str, object]]) -> go.Figure:
    """Runs as points, coloured by schedule.

    Parameters
    ----------
    points : ``schedule`` (the group), ``label``, ``measured_s`` and ``predicted_s`` of each run.
    """
    figure = new_figure("Predicted against measured", "Time of one isolated call; a point per run.", HEIGHT_PIXELS)
    names = sorted({str(point["schedule"]) for point in points})
    for number, name in enumerate(names):
        own = [point for point in points if point["schedule"] == name]
        figure.add_trace(_markers(name, number, own))
    if points:
        times = [_ms(point, key) for point in points for key in ("measured_s", "predicted_s")]
        figure.add_trace(_diagonal(times))
        figure.update_layout(xaxis=log_axis(times), yaxis=log_axis(times))
    figure.update_xaxes(title_text="measured (ms)")
    figure.update_yaxes(title_text="predicted (ms)")
    figure.update_layout(showlegend=True)
    make_room_for_legend(figure)
    return figure


def _markers(name: str, number: int, own: Sequence[Mapping[str, object]]) -> go.Scatter:
    return go.Scatter(
        x=[_ms(point, "measured_s") for point in own],
        y=[_ms(point, "predicted_s") for point in own],
        mode="markers",
        name=safe(name),
        text=[safe(point["label"]) for point in own],
        hovertemplate="%{text}<br>measured %{x:.4g} ms, predicted %{y:.4g} ms<extra></extra>",
        marker={"color": PALETTE[number % len(PALETTE)], "symbol": SYMBOLS[number % len(SYMBOLS)]},
    )


def _diagonal(times_ms: Sequence[float]) -> go.Scatter:
    ends = [min(times_ms), max(times_ms)]
    return go.Scatter(
        x=ends, y=ends, mode="lines", name="equal", line={"color": MUTED, "dash": "dot"}, hoverinfo="skip"
    )


def _ms(point: Mapping[str, object], key: str) -> float:
    value = point[key]
    assert isinstance(value, int | float)
    return 1e3 * float(value)

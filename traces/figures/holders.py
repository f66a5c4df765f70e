"""What holds memory at its peak: buffers by name, coloured by what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from traces.display import byte_unit, format_bytes
from traces.figures.style import BAR_HEIGHT, MUTED, label_rows, new_figure, safe

ROW_PIXELS, LABEL_ROOM = 26, 1.3
LISTED = 12
"""Names that get a bar each; the rest shares one."""
COLOURS = {
    "weights": "#0072B2",
    "weight gradients": "#56B4E9",
    "optimizer states": "#332288",
    "KV cache": "#E69F00",
    "activations": "#009E73",
    "workspace": "#D55E00",
    "smaller ones": "#B4BDC9",
}

Row = Mapping[str, object]


def plot_holders(rows: Sequence[Row]) -> go.Figure:
    """Draw the buffers that are in use at the peak.

    Parameters
    ----------
    rows : ``name``, ``category`` (a key of ``COLOURS``), ``count`` (buffers of that name) and ``bytes``, the largest
        first.
    """
    total = sum(_bytes(row) for row in rows)
    unit, size = byte_unit(max((_bytes(row) for row in rows), default=0))
    shown = [*rows[:LISTED], *_rest(rows[LISTED:])]
    figure = new_figure("What holds memory at the peak", _note(rows, total), ROW_PIXELS * max(len(shown), 1))
    for category in COLOURS:
        own = [(place, row) for place, row in enumerate(shown) if row["category"] == category]
        if own:
            figure.add_trace(_bars(category, own, size, total))
    label_rows(figure, [float(i) for i in range(len(shown))], [safe(_label(row)) for row in shown])
    look = {"showarrow": False, "xanchor": "left", "xshift": 6, "font": {"color": MUTED}}
    texts = [f"{format_bytes(_bytes(row))} ({_bytes(row) / (total or 1):.0%})" for row in shown]
    ends = [_bytes(row) / size for row in shown]
    places = [{"x": end, "y": i, "text": text, **look} for i, (end, text) in enumerate(zip(ends, texts, strict=True))]
    figure.update_layout(
        annotations=places,
        barmode="overlay",
        showlegend=True,
        xaxis={"title_text": f"in use ({unit})", "range": [0, LABEL_ROOM * (max(ends, default=0) or 1)]},
    )
    return figure


def _bars(category: str, own: Sequence[tuple[int, Row]], size: float, total: int) -> go.Bar:
    return go.Bar(
        name=category,
        orientation="h",
        y=[place for place, _ in own],
        x=[_bytes(row) / size for _, row in own],
        width=BAR_HEIGHT,
        marker={"color": COLOURS[category], "line": {"width": 0}},
        hovertext=[
            f"<b>{safe(_label(row))}</b><br>{format_bytes(_bytes(row))}, {_bytes(row) / (total or 1):.1%} of the peak"
            f"<br>{category}" for _, row in own
        ],
        hoverinfo="text",
    )  # fmt: skip


def _note(rows: Sequence[Row], total: int) -> str:
    if not rows:
        return "Nothing is allocated."
    of: dict[str, int] = {}
    for row in rows:
        of[str(row["category"])] = of.get(str(row["category"]), 0) + _bytes(row)
    largest = sorted(of.items(), key=lambda each: -each[1])
    parts = ", ".join(f"{category} {format_bytes(n_bytes)}" for category, n_bytes in largest)
    return f"{format_bytes(total)} on the rank with the largest peak: {parts}."


def _rest(rows: Sequence[Row]) -> list[Row]:
    if not rows:
        return []
    n_bytes = sum(_bytes(row) for row in rows)
    name = f"{len(rows)} smaller" if len(rows) > 1 else str(rows[0]["name"])
    return [{"name": name, "category": "smaller ones", "count": 1, "bytes": n_bytes}]


def _label(row: Row) -> str:
    count = int(str(row["count"]))
    return f"{row['name']}" + (f" × {count}" if count > 1 else "")


def _bytes(row: Row) -> int:
    return int(str(row["bytes"]))

"""Roofline: kernels of a run under the GPU's ceilings, by arithmetic intensity.

A point is a kernel, as large as its share of the time. A kernel without products has no intensity: it stands on the
left edge, as far under the slope as its bytes per second are under the memory's.
Source: Williams, Waterman, Patterson 2009.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from traces.display import format_bytes, format_ns
from traces.figures.colours import colour_of, group_of, readable
from traces.figures.style import MUTED, log_axis, make_room_for_legend, new_figure, safe

PLOT_PIXELS = 380
LEAST_PIXELS, MOST_PIXELS = 8, 30
LEAST_SHARE = 1e-3
"""Of the kernels' time, to be drawn."""
EDGE = 4.0
"""How far left of the least intensity, or of the ridge, the edge lies, as a factor."""
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "star", "x", "hexagon")

Row = Mapping[str, object]


def plot_roofline(rows: Sequence[Row], peak_flop_per_s: float, memory_bytes_per_s: float) -> go.Figure:
    """Draw kernels and ceilings.

    Parameters
    ----------
    rows : kernels of one rank: ``kind``, ``phase``, ``flop``, ``bytes`` and ``time_ns`` of one, ``count`` of them.
    peak_flop_per_s, memory_bytes_per_s : the ceilings.
    """
    figure = new_figure("Roofline", _note(rows, peak_flop_per_s, memory_bytes_per_s), PLOT_PIXELS)
    ridge = peak_flop_per_s / memory_bytes_per_s
    known = [_number(row, "flop") / _number(row, "bytes") for row in rows if row["flop"] and row["bytes"]]
    left, right = min([ridge, *known]) / EDGE, max([ridge, *known]) * EDGE
    figure.add_trace(_ceilings(left, right, peak_flop_per_s, memory_bytes_per_s))
    total_ns = sum(_time_ns(row) for row in rows) or 1
    drawn = [row for row in rows if _time_ns(row) >= LEAST_SHARE * total_ns]
    for number, group in enumerate(dict.fromkeys(_group(row) for row in drawn)):
        own = [row for row in drawn if _group(row) == group]
        figure.add_trace(_points(group, SYMBOLS[number % len(SYMBOLS)], own, left, total_ns))
    rates = [left * memory_bytes_per_s, peak_flop_per_s, *(_rate(row, left) for row in drawn)]
    figure.update_layout(
        showlegend=True,
        xaxis={"title_text": "arithmetic intensity (FLOP per byte)", **log_axis([left, right])},
        yaxis={"title_text": "rate (TFLOP/s)", **log_axis([rate / 1e12 for rate in rates])},
    )
    make_room_for_legend(figure)
    return figure


def _ceilings(left: float, right: float, peak: float, memory: float) -> go.Scatter:
    ridge = peak / memory
    return go.Scatter(
        x=[left, ridge, right], y=[left * memory / 1e12, peak / 1e12, peak / 1e12], mode="lines", name="ceiling",
        line={"color": MUTED, "width": 2}, hoverinfo="skip",
    )  # fmt: skip


def _group(row: Row) -> str:
    """What shares a legend entry."""
    kind, phase = str(row["kind"]), str(row["phase"])
    return group_of(kind) + ("" if phase in kind else f", {phase}")


def _points(group: str, symbol: str, own: Sequence[Row], left: float, total_ns: float) -> go.Scatter:
    rates = [_rate(row, left) for row in own]
    shares = [_time_ns(row) / total_ns for row in own]
    return go.Scatter(
        x=[_number(row, "flop") / _number(row, "bytes") if row["flop"] and row["bytes"] else left for row in own],
        y=[rate / 1e12 for rate in rates],
        mode="markers",
        name=safe(group),
        marker={
            "color": colour_of(str(own[0]["kind"]), "compute"),
            "symbol": symbol,
            "size": [LEAST_PIXELS + (MOST_PIXELS - LEAST_PIXELS) * share**0.5 for share in shares],
            "opacity": 0.85,
            "line": {"width": 1, "color": "white"},
        },
        hovertext=[_story(row, share) for row, share in zip(own, shares, strict=True)],
        hoverinfo="text",
    )


def _rate(row: Row, left: float) -> float:
    """FLOP/s; of a kernel without products what its bytes would be at the left edge."""
    flop = _number(row, "flop") or _number(row, "bytes") * left
    return flop / (_number(row, "time_ns") / 1e9)


def _story(row: Row, share: float) -> str:
    count, time_ns = int(_number(row, "count")), _number(row, "time_ns")
    lines = [
        f"<b>{safe(readable(str(row['kind'])))}, {safe(row['phase'])}</b>" + (f" × {count:,}" if count > 1 else "")
    ]
    lines.append(f"{format_ns(time_ns)} each, {share:.1%} of the kernels' time")
    if row["flop"]:
        lines.append(f"{_number(row, 'flop') / time_ns / 1e3:.3g} TFLOP/s")
    if row["flop"] and row["bytes"]:
        lines.append(f"{_number(row, 'flop') / _number(row, 'bytes'):.3g} FLOP per byte")
    lines.append(f"{format_bytes(_number(row, 'bytes'))} moved, {_number(row, 'bytes') / time_ns / 1e3:.3g} TB/s")
    return "<br>".join(lines)


def _note(rows: Sequence[Row], peak: float, memory: float) -> str:
    note = f"Ceilings: {peak / 1e12:.4g} TFLOP/s, {memory / 1e12:.3g} TB/s."
    if not rows:
        return f"{note} No kernels ran."
    note += " A kernel of the critical rank is as large as its share of the time"
    without = any(not row["flop"] for row in rows)
    note += "; those without products stand on the left edge" if without else ""
    total_ns = sum(_time_ns(row) for row in rows)
    few = any(_time_ns(row) < LEAST_SHARE * total_ns for row in rows)
    return note + (f", those under {LEAST_SHARE:.1%} are left out." if few else ".")


def _time_ns(row: Row) -> float:
    return _number(row, "time_ns") * _number(row, "count")


def _number(row: Row, name: str) -> float:
    return float(str(row[name]))

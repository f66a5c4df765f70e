"""Scaling curves: time over GPUs or over sequence length, a line per schedule, both axes logarithmic.

Over GPUs a dotted line shows what the best at the fewest GPUs would take if it scaled perfectly: time / GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from traces.display import format_bytes, format_ns, format_tokens, time_unit
from traces.figures.palette import Look, looks_of, short_names
from traces.figures.style import MUTED, log_axis, make_room_for_legend, new_figure, safe

PLOT_PIXELS = 340
AXES = {"gpus": "GPUs", "seq_len": "sequence length (tokens)"}

Row = Mapping[str, object]


def plot_scaling(rows: Sequence[Row], over: str = "gpus") -> go.Figure:
    """Draw times of a sweep.

    Parameters
    ----------
    rows : ``schedule``, ``time_s`` (None where refused), ``fits``, ``peak_memory_bytes`` and the column ``over``.
    over : ``gpus`` or ``seq_len``.
    """
    ran = [row for row in rows if row["time_s"] is not None]
    names = sorted({str(row["schedule"]) for row in ran})
    unit, size = time_unit(max((_time_ns(row) for row in ran), default=0))
    figure = new_figure("Scaling", _note(len(rows) - len(ran), ran), PLOT_PIXELS)
    labels = short_names(names)
    for name, look in looks_of(names).items():
        own = sorted((row for row in ran if row["schedule"] == name), key=lambda row: _at(row, over))
        figure.add_trace(_curve(labels[name], look, own, over, size))
    if over == "gpus" and ran:
        figure.add_trace(_ideal(ran, size))
    ticks = sorted({_at(row, over) for row in ran})
    figure.update_xaxes(type="log", title_text=AXES[over], rangemode="normal")
    figure.update_xaxes(tickvals=ticks, ticktext=[_tick(tick, over) for tick in ticks])
    times = [_time_ns(row) / size for row in ran]
    figure.update_yaxes(title_text=f"time ({unit})", **(log_axis(times) if times else {}))
    figure.update_layout(showlegend=True)
    make_room_for_legend(figure)
    return figure


def _note(n_refused: int, ran: Sequence[Row]) -> str:
    hollow = "; hollow: does not fit in memory" if any(not row["fits"] for row in ran) else ""
    refused = f"; {n_refused} points cannot run and are left out" if n_refused else ""
    return f"Time of one call{hollow}{refused}."


def _curve(label: str, look: Look, own: Sequence[Row], over: str, size: float) -> go.Scatter:
    return go.Scatter(
        x=[_at(row, over) for row in own],
        y=[_time_ns(row) / size for row in own],
        mode="lines+markers",
        name=safe(label),
        line={"color": look.colour, "dash": look.dash, "width": 2},
        marker={
            "symbol": [look.symbol if row["fits"] else f"{look.symbol}-open" for row in own],
            "color": look.colour,
            "size": 8,
        },
        hovertext=[_story(row, over) for row in own],
        hoverinfo="text",
    )


def _story(row: Row, over: str) -> str:
    memory = row.get("peak_memory_bytes")
    held = "" if memory is None else f"<br>peak memory {format_bytes(float(str(memory)))}"
    fits = "" if row["fits"] else ", does not fit"
    return f"<b>{safe(row['schedule'])}</b><br>{_tick(_at(row, over), over)} {AXES[over].partition(' (')[0]}: " \
           f"{format_ns(_time_ns(row))}{held}{fits}"  # fmt: skip


def _ideal(ran: Sequence[Row], size: float) -> go.Scatter:
    counts = sorted({_at(row, "gpus") for row in ran})
    best_ns = min(_time_ns(row) for row in ran if _at(row, "gpus") == counts[0])
    return go.Scatter(
        x=counts,
        y=[best_ns * counts[0] / count / size for count in counts],
        mode="lines",
        name="perfect scaling",
        line={"color": MUTED, "dash": "dot", "width": 1.5},
        hoverinfo="skip",
    )


def _tick(value: int, over: str) -> str:
    return format_tokens(value) if over == "seq_len" else str(value)


def _at(row: Row, over: str) -> int:
    return int(str(row[over]))


def _time_ns(row: Row) -> float:
    return float(str(row["time_s"])) * 1e9

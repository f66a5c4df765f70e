"""Crossover map: which schedule is quickest, over sequence length and the speed of a link.

A cell is a sequence length and a factor of the link's bandwidth; its colour is the winner's, and its hover has the
times of all. Only what fits in memory can win.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from traces.display import format_ns, format_tokens
from traces.figures.palette import looks_of
from traces.figures.style import make_room_for_legend, new_figure, safe

CELL_PIXELS, LEAST_PIXELS = 44, 220
NAMED_COLUMNS, NAMED_CHARACTERS = 9, 14
"""Columns up to which cells have names in them, and characters up to which a name is written there."""
NOBODY = "#F0F1F3"
LISTED = 8
LINKS = {"net": "network", "nvlink": "NVLink", "pcie": "PCIe", "c2c": "C2C"}
"""Links as an axis calls them."""

Row = Mapping[str, object]
Cell = tuple[int, float]


def plot_crossover(rows: Sequence[Row], link: str = "link") -> go.Figure:
    """Draw the winner of each cell.

    Parameters
    ----------
    rows : ``schedule``, ``seq_len`` (tokens), ``factor`` (of the link's bandwidth), ``time_s`` (None where refused) and
        ``fits``, one per simulation.
    link : what the factor is of, for the axis.
    """
    cells = _by_cell(rows)
    lengths, factors = sorted({length for length, _ in cells}), sorted({factor for _, factor in cells})
    winners = {cell: winner(own) for cell, own in cells.items()}
    names = sorted({name for name in winners.values() if name is not None})
    height = max(LEAST_PIXELS, CELL_PIXELS * len(factors))
    figure = new_figure("Which schedule is quickest", _note(names, winners), height)
    figure.add_trace(_heat_map(cells, winners, names, lengths, factors))
    for name, look in looks_of(names).items():
        figure.add_trace(_legend_entry(safe(name), look.colour))
    if None in winners.values():
        figure.add_trace(_legend_entry("nothing fits", NOBODY))
    figure.update_xaxes(title_text="sequence length (tokens)", type="category", showgrid=False, rangemode="normal")
    figure.update_yaxes(
        title_text=f"{LINKS.get(link, link)} bandwidth (times today's)", type="category", showgrid=False
    )
    figure.update_layout(showlegend=True, legend_itemclick=False, legend_itemdoubleclick=False)
    make_room_for_legend(figure)
    return figure


def winner(rows: Sequence[Row]) -> str | None:
    """The quickest of those that ran and fit.

    >>> winner([{"schedule": "ring", "time_s": 2.0, "fits": True}, {"schedule": "tp", "time_s": 1.0, "fits": False}])
    'ring'
    """
    able = [
        (float(str(row["time_s"])), str(row["schedule"])) for row in rows if row["time_s"] is not None and row["fits"]
    ]
    return min(able)[1] if able else None


def _by_cell(rows: Sequence[Row]) -> dict[Cell, list[Row]]:
    cells: dict[Cell, list[Row]] = {}
    for row in rows:
        cells.setdefault((int(str(row["seq_len"])), float(str(row["factor"]))), []).append(row)
    return cells


def _note(names: Sequence[str], winners: Mapping[Cell, str | None]) -> str:
    if not names:
        return "Nothing fits in memory anywhere."
    if len(names) == 1 and None not in winners.values():
        return f"{names[0]} is the quickest everywhere: nothing crosses over here."
    return "The quickest of those that fit in memory; hover for the times of all."


def _heat_map(
    cells: Mapping[Cell, Sequence[Row]],
    winners: Mapping[Cell, str | None],
    names: Sequence[str],
    lengths: Sequence[int],
    factors: Sequence[float],
) -> go.Heatmap:
    number: dict[str | None, int] = {name: i + 1 for i, name in enumerate(names)} | {None: 0}
    grid = [[(length, factor) for length in lengths] for factor in factors]
    named = len(lengths) <= NAMED_COLUMNS
    return go.Heatmap(
        x=[format_tokens(length) for length in lengths],
        y=[f"{factor:g}×" for factor in factors],
        z=[[number[winners[cell]] if cell in winners else None for cell in line] for line in grid],
        text=[[_cell_name(winners.get(cell)) if named else "" for cell in line] for line in grid],
        texttemplate="%{text}",
        hovertext=[[_story(cell, cells.get(cell, ())) for cell in line] for line in grid],
        hoverinfo="text",
        colorscale=_steps([NOBODY, *[look.colour for look in looks_of(list(names)).values()]]),
        zmin=-0.5,
        zmax=len(names) + 0.5,
        showscale=False,
        xgap=2,
        ygap=2,
        meta={"names": ["", *names]},
    )


def _steps(colours: Sequence[str]) -> list[list[float | str]]:
    """A scale of plain colours, without anything between them."""
    share = 1 / len(colours)
    return [[end, colour] for i, colour in enumerate(colours) for end in (i * share, min(1.0, (i + 1) * share))]


def _cell_name(name: str | None) -> str:
    head = "" if name is None else name.partition(":")[0]
    return safe(head if len(head) <= NAMED_CHARACTERS else head[: NAMED_CHARACTERS - 1] + "…")


def _story(cell: Cell, rows: Sequence[Row]) -> str:
    ran = sorted(
        (float(str(row["time_s"])), str(row["schedule"]), row["fits"]) for row in rows if row["time_s"] is not None
    )
    lines = [f"<b>{format_tokens(cell[0])} tokens, {cell[1]:g}x</b>"]
    for time_s, name, fits in ran[:LISTED]:
        lines.append(f"{safe(name)} {format_ns(time_s * 1e9)}" + ("" if fits else " (does not fit)"))
    if len(ran) > LISTED:
        lines.append(f"and {len(ran) - LISTED} slower ones")
    return "<br>".join(lines)


def _legend_entry(name: str, colour: str) -> go.Scatter:
    marker = {"symbol": "square", "size": 12, "color": colour}
    return go.Scatter(x=[None], y=[None], mode="markers", name=name, marker=marker, hoverinfo="skip")

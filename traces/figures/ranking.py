"""Schedules by time, with the interval that holds it; exact and approximate ones apart, hatched if memory is short."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from traces.display import Unit, format_ns, time_unit
from traces.figures.style import BAR_HEIGHT, TEXT, add_lengths, label_rows, new_figure, row_pixels, safe, wrapped_name

REASON_CHARACTERS = 60
ALIKE = 0.02
"""Share by which times may differ that are called alike."""
EXACT, APPROXIMATE = "#0072B2", "#E69F00"


class Group(NamedTuple):
    """Schedules that share a legend entry."""

    exact: bool
    fits: bool

    @property
    def name(self) -> str:
        """As the legend shows it."""
        return ("exact" if self.exact else "approximate") + ("" if self.fits else ", does not fit in memory")


GROUPS = (Group(True, True), Group(True, False), Group(False, True), Group(False, False))


class Entry(NamedTuple):
    """A row of the figure; ``group`` is None where the schedule was refused."""

    row: int
    group: Group | None
    time_ns: float
    low_ns: float
    high_ns: float
    interval: str
    text: str


def plot_ranking(rows: Sequence[Mapping[str, object]]) -> go.Figure:
    """Times of schedules with their uncertainty, as ``compare`` returns them: refused ones are listed with the reason.

    Parameters
    ----------
    rows : results (``schedule``, ``time_s``, ``uncertainty``, ``exact``, ``fits``), or ``schedule`` and ``reason``.
    """
    entries = [_entry(i, row) for i, row in enumerate(rows)]
    unit = time_unit(max((entry.high_ns for entry in entries), default=0))
    names = [wrapped_name(str(row["schedule"])) for row in rows]
    figure = new_figure("Ranking", _note(entries), row_pixels(names) * len(names))
    for group in GROUPS:
        chosen = [entry for entry in entries if entry.group == group]
        if chosen:
            figure.add_trace(_bars(group, chosen, unit))
    label_rows(figure, [float(i) for i in range(len(names))], names)
    add_lengths(figure, [entry.high_ns for entry in entries], [entry.text for entry in entries], unit)
    figure.update_layout(barmode="overlay", showlegend=True)
    return figure


def _note(entries: Sequence[Entry]) -> str:
    whiskers = any(entry.high_ns > entry.low_ns for entry in entries)
    note = "Time of one call"
    note += "; the whisker is its 90 % interval, most of which schedules share." if whiskers else "."
    exact = [entry.time_ns for entry in entries if entry.group is not None and entry.group.exact]
    alike = sum(time_ns <= (1 + ALIKE) * min(exact) for time_ns in exact)
    return f"{note} {alike} exact ones are within {ALIKE:.0%} of the quickest: choose among them by memory." \
        if alike > 1 else note  # fmt: skip


def _entry(row: int, result: Mapping[str, object]) -> Entry:
    if "reason" in result:
        reason = textwrap.shorten(str(result["reason"]), REASON_CHARACTERS, placeholder=" …")
        return Entry(row, None, 0, 0, 0, "", f"<i>refused: {safe(reason)}</i>")
    time_ns = _nanoseconds(result["time_s"])
    low_ns, high_ns, interval = _likely(result.get("uncertainty"), time_ns)
    group = Group(bool(result.get("exact", True)), bool(result.get("fits", True)))
    return Entry(row, group, time_ns, low_ns, high_ns, interval, format_ns(time_ns))


def _likely(uncertainty: object, time_ns: float) -> tuple[float, float, str]:
    """The interval, widened to hold the time itself, and in words."""
    if not isinstance(uncertainty, Mapping):
        return time_ns, time_ns, ""
    low_ns, high_ns = _nanoseconds(uncertainty["low_s"]), _nanoseconds(uncertainty["high_s"])
    level = f" ({uncertainty['level']:.0%})" if "level" in uncertainty else ""
    beyond = ", beyond what was calibrated" if uncertainty.get("extrapolated") else ""
    words = f"<br>{format_ns(low_ns)} to {format_ns(high_ns)}{level}{beyond}"
    return min(low_ns, time_ns), max(high_ns, time_ns), words


def _nanoseconds(time_s: object) -> float:
    return float(str(time_s)) * 1e9


def _bars(group: Group, entries: list[Entry], unit: Unit) -> go.Bar:
    return go.Bar(
        name=group.name,
        orientation="h",
        y=[entry.row for entry in entries],
        x=[entry.time_ns / unit[1] for entry in entries],
        width=BAR_HEIGHT,
        marker={
            "color": EXACT if group.exact else APPROXIMATE,
            "pattern": {"shape": "" if group.fits else "/", "fillmode": "replace", "solidity": 0.45},
        },
        error_x={
            "type": "data",
            "array": [(entry.high_ns - entry.time_ns) / unit[1] for entry in entries],
            "arrayminus": [(entry.time_ns - entry.low_ns) / unit[1] for entry in entries],
            "symmetric": False,
            "thickness": 1.5,
            "width": 4,
            "color": TEXT,
        },
        hovertext=[f"<b>{entry.text}</b>, {group.name}{entry.interval}" for entry in entries],
        hoverinfo="text",
    )

"""Waterfall of one call: parts of the critical rank's time, each beginning where the one before ends."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import NamedTuple

import plotly.graph_objects as go

from traces.display import Unit, format_ns, time_unit
from traces.figures.colours import IDLE, colour_of, readable
from traces.figures.style import BAR_HEIGHT, MUTED, add_lengths, label_rows, new_figure, safe

ROW_PIXELS, LABEL_ROOM = 34, 1.4
MOST_STEPS, SMALL = 12, 0.01
"""Steps up to which each has a bar, and the share of the time below which the small ones of more share one."""
ORDER = ("compute", "communication", "copy", "host", "idle")


class Step(NamedTuple):
    """A part of the time, and its name as the figure shows it."""

    category: str
    kind: str
    name: str
    time_ns: int


def plot_waterfall(parts: Mapping[str, int]) -> go.Figure:
    """Draw parts by category and phase, and their total.

    Parameters
    ----------
    parts : nanoseconds by ``category/kind/phase``, as :func:`traces.metrics.breakdown` returns them.
    """
    steps = _without_small([_step(key, value) for key, value in parts.items() if value])
    steps.sort(key=lambda step: ORDER.index(step.category))
    total_ns = sum(step.time_ns for step in steps)
    ends = list(accumulate(step.time_ns for step in steps))
    unit = time_unit(total_ns)
    figure = new_figure("Waterfall of one call", "Critical rank; communication is what computation does not hide.",
                        ROW_PIXELS * (len(steps) + 1))  # fmt: skip
    for row, (step, end) in enumerate(zip(steps, ends, strict=True)):
        figure.add_trace(_bar(row, step, end - step.time_ns, total_ns, unit))
    figure.add_trace(_total(len(steps), total_ns, unit))
    label_rows(
        figure, [float(i) for i in range(len(steps) + 1)], [*[safe(step.name) for step in steps], "<b>total</b>"]
    )
    texts = [f"{format_ns(step.time_ns)} ({step.time_ns / total_ns:.0%})" for step in steps]
    add_lengths(figure, [*ends, total_ns], [*texts, f"<b>{format_ns(total_ns)}</b>"], unit)
    figure.update_xaxes(range=[0, LABEL_ROOM * (total_ns or 1) / unit[1]])
    figure.update_layout(barmode="overlay", showlegend=False)
    return figure


def _without_small(steps: list[Step]) -> list[Step]:
    """Where there are many, those that nobody would see are one step per category."""
    if len(steps) <= MOST_STEPS:
        return steps
    least_ns = SMALL * sum(step.time_ns for step in steps)
    kept = [step for step in steps if step.time_ns >= least_ns or step.category == "idle"]
    for category in dict.fromkeys(step.category for step in steps):
        small = [step for step in steps if step.category == category and step not in kept]
        if small:
            name = f"{len(small)} smaller, {category}" if len(small) > 1 else small[0].name
            kept.append(Step(category, small[0].kind if len(small) == 1 else category, name,
                             sum(step.time_ns for step in small)))  # fmt: skip
    return kept


def _step(key: str, time_ns: int) -> Step:
    category, *rest = key.split("/")
    kind = rest[0] if rest else category
    prefix = "exposed " if category == "communication" else ""
    phase = f", {rest[1]}" if len(rest) > 1 and rest[1] not in kind else ""
    return Step(category, kind, prefix + readable(kind) + phase, time_ns)


def _bar(row: int, step: Step, start_ns: int, total_ns: int, unit: Unit) -> go.Bar:
    category, kind, name, time_ns = step
    return go.Bar(
        name=safe(name),
        orientation="h",
        y=[row],
        base=[start_ns / unit[1]],
        x=[time_ns / unit[1]],
        width=BAR_HEIGHT,
        marker={"color": IDLE if category == "idle" else colour_of(kind, category), "line": {"width": 0}},
        hovertext=[f"<b>{safe(name)}</b><br>{format_ns(time_ns)} of {format_ns(total_ns)}"],
        hoverinfo="text",
    )


def _total(row: int, total_ns: int, unit: Unit) -> go.Bar:
    return go.Bar(
        name="total",
        orientation="h",
        y=[row],
        base=[0],
        x=[total_ns / unit[1]],
        width=BAR_HEIGHT,
        marker={"color": MUTED},
        hovertext=[f"<b>total</b><br>{format_ns(total_ns)}"],
        hoverinfo="text",
    )

"""Simulated against measured as one HTML page: what differs, ranked by cost, and both timelines under each other."""

from __future__ import annotations

import os

from traces.differences import Comparison, Difference, describe
from traces.display import format_part
from traces.figures.embed import Figure
from traces.figures.timeline import plot_timeline
from traces.report import Section, write_report
from traces.timeline import Timeline

MAX_ROWS, MAX_BARS = 40, 5_000


def write_difference_report(
    path: str | os.PathLike[str], comparison: Comparison, simulated: Timeline, measured: Timeline
) -> None:
    """Write the page, whole or not at all."""
    both = {"Simulated": simulated, "Measured": measured}
    span_ns = max(each.makespan_ns for each in both.values())
    sections = [
        Section("Parts of the time, by what they cost", [difference_rows(comparison.parts)]),
        *[Section("", [_figure(name, each, span_ns)]) for name, each in both.items()],
        Section("Operations, by what they cost", [difference_rows(comparison.operations)]),
    ]
    sentence = format_part(describe(comparison))
    write_report(path, sentence[0].upper() + sentence[1:], sections)


def _figure(name: str, timeline: Timeline, span_ns: int) -> Figure:
    figure = plot_timeline(timeline, max_bars=MAX_BARS, span_ns=span_ns)
    figure.layout.title.text = f"<b>{name}</b>"
    return figure


def difference_rows(differences: tuple[Difference, ...]) -> list[dict[str, object]]:
    """The largest, as rows of a table."""
    return [
        {
            "name": format_part(each.name),
            "simulated_ns": "" if each.simulated_ns is None else each.simulated_ns,
            "measured_ns": "" if each.measured_ns is None else each.measured_ns,
            "cost_ns": each.cost_ns,
        }
        for each in differences[:MAX_ROWS]
    ]

"""Simulated against measured as one HTML page: what differs, ranked by cost, and both timelines under each other."""

from __future__ import annotations

import os

from traces.differences import Comparison, Difference, describe
from traces.figures.timeline import plot_timeline
from traces.report import Section, write_report
from traces.timeline import Timeline

MAX_ROWS = 40


def write_difference_report(
    path: str | os.PathLike[str], comparison: Comparison, simulated: Timeline, measured: Timeline
) -> None:
    """Write the page, whole or not at all."""
    bars = 5_000
    sections = [
        Section("Parts of the time, by what they cost", [difference_rows(comparison.parts)]),
        Section("Simulated", [plot_timeline(simulated, max_bars=bars)]),
        Section("Measured", [plot_timeline(measured, max_bars=bars)]),
        Section("Operations, by what they cost", [difference_rows(comparison.operations)]),
    ]
    write_report(path, describe(comparison), sections)


def difference_rows(differences: tuple[Difference, ...]) -> list[dict[str, object]]:
    """The largest, as rows of a table."""
    return [
        {
            "name": each.name,
            "simulated_ns": "" if each.simulated_ns is None else each.simulated_ns,
            "measured_ns": "" if each.measured_ns is None else each.measured_ns,
            "cost_ns": each.cost_ns,
        }
        for each in differences[:MAX_ROWS]
    ]

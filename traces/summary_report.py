"""A trace's summary as one HTML page: the timeline, a row per rank and step, and the critical path."""

from __future__ import annotations

import os
from collections.abc import Iterator

from traces.display import format_ns, format_part
from traces.figures.timeline import plot_timeline
from traces.report import Section, write_report
from traces.summary import Summary
from traces.timeline import Timeline


def write_summary_report(path: str | os.PathLike[str], summary: Summary, timeline: Timeline) -> None:
    """Write the page, whole or not at all."""
    critical = [{"part": format_part(name), "time_ns": value} for name, value in summary.path.by_name().items()]
    sections = [
        Section("", [plot_timeline(timeline)]),
        Section("Ranks and steps", [list(_rows(summary))]),
        Section("Critical path across ranks", [critical]),
        *([Section("Warnings", [list(summary.warnings)])] if summary.warnings else []),
    ]
    write_report(path, f"Trace of {summary.n_ranks} ranks, {format_ns(summary.makespan_ns)}", sections)


def _rows(summary: Summary) -> Iterator[dict[str, object]]:
    for step in summary.steps:
        fields = {name: value for name, value in vars(step).items() if name != "idle_ns"}
        yield fields | {f"idle_{cause}_ns": value for cause, value in step.idle_ns.items()}

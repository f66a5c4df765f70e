"""Summaries and differences of traces as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.traced.what_if import WhatIf
from traces.differences import Comparison, Difference, describe
from traces.display import format_ns, format_part
from traces.idle import CAUSES
from traces.summary import Summary

if TYPE_CHECKING:
    from rich.table import Table

MAX_ROWS = 12
STEP_COLUMNS = {
    "time": "window_ns",
    "compute": "compute_ns",
    "comm.": "communication_ns",
    "exposed": "exposed_communication_ns",
    "waiting": "wait_ns",
    "copies": "copy_ns",
}


def summary_tables(summary: Summary) -> list[Table]:
    """A row per rank and step, why it was idle, and what the critical path consists of."""
    steps = _table(f"{summary.n_ranks} ranks, {format_ns(summary.makespan_ns)}", "rank", "step", *STEP_COLUMNS)
    causes = [cause for cause in CAUSES if any(step.idle_ns[cause] for step in summary.steps)]
    idle = _table("Idle, by cause", "rank", "step", *causes)
    for step in summary.steps:
        steps.add_row(str(step.rank), step.step, *(format_ns(getattr(step, name)) for name in STEP_COLUMNS.values()))
        idle.add_row(str(step.rank), step.step, *(format_ns(step.idle_ns[cause]) for cause in causes))
    path = _table("Critical path across ranks", "part", "time", "share")
    for name, value in summary.path.by_name().items():
        path.add_row(format_part(name), format_ns(value), f"{value / (summary.makespan_ns or 1):.1%}")
    return [steps, *([idle] if causes else []), path]


def difference_tables(comparison: Comparison) -> list[Table]:
    """Parts of the time, and operations, by what they cost."""
    parts = _differences(describe(comparison), comparison.parts)
    operations = _differences("Operations", comparison.operations)
    return [parts, operations]


def what_if_tables(answer: WhatIf) -> list[Table]:
    """Measured, simulated again, and changed."""
    table = _table("What if", "run", "time", "against measured")
    rows = {"measured": answer.measured_ns, "simulated, unchanged": answer.unchanged_ns, "changed": answer.changed_ns}
    for name, time_ns in rows.items():
        table.add_row(name, format_ns(time_ns), f"{time_ns / answer.measured_ns - 1:+.1%}")
    return [table]


def _differences(title: str, differences: tuple[Difference, ...]) -> Table:
    table = _table(title, "part", "simulated", "measured", "cost")
    for each in differences[:MAX_ROWS]:
        both = ("none" if value is None else format_ns(value) for value in (each.simulated_ns, each.measured_ns))
        table.add_row(format_part(each.name), *both, format_ns(each.cost_ns))
    return table


def _table(title: str, *headers: str) -> Table:
    """The first column takes text, the others numbers."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for i, header in enumerate(headers):
        table.add_column(header, justify="right" if i else "left", no_wrap=bool(i), overflow="fold")
    return table

"""Summaries and differences of traces as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from traces.differences import Comparison, Difference, describe
from traces.display import format_ns
from traces.summary import Summary

if TYPE_CHECKING:
    from rich.table import Table

MAX_ROWS = 12
STEP_COLUMNS = ("window_ns", "compute_ns", "communication_ns", "exposed_communication_ns", "wait_ns", "copy_ns")
HEADERS = ("rank", "step", "time", "compute", "comm.", "exposed\ncomm.", "of it\nwaiting", "copies", "idle", "by cause")


def summary_tables(summary: Summary) -> list[Table]:
    """A row per rank and step, and what the critical path consists of."""
    steps = _table(f"{summary.n_ranks} ranks, {format_ns(summary.makespan_ns)}")
    for header in HEADERS:
        steps.add_column(header, justify="left" if header == "by cause" else "right", overflow="fold")
    for step in summary.steps:
        idle = {cause: value for cause, value in step.idle_ns.items() if value}
        causes = ", ".join(f"{cause} {format_ns(value)}" for cause, value in idle.items())
        times = [format_ns(getattr(step, name)) for name in STEP_COLUMNS]
        steps.add_row(str(step.rank), step.step, *times, format_ns(sum(idle.values())), causes)
    path = _table("Critical path across ranks")
    path.add_column("part", overflow="fold")
    path.add_column("time", justify="right", no_wrap=True)
    path.add_column("share", justify="right", no_wrap=True)
    for name, value in summary.path.by_name().items():
        path.add_row(_readable(name), format_ns(value), f"{value / (summary.makespan_ns or 1):.1%}")
    return [steps, path]


def difference_tables(comparison: Comparison) -> list[Table]:
    """Parts of the time, and operations, by what they cost."""
    parts = _differences(describe(comparison), comparison.parts)
    operations = _differences("Operations", comparison.operations)
    return [parts, operations]


def _differences(title: str, differences: tuple[Difference, ...]) -> Table:
    table = _table(title)
    table.add_column("", overflow="fold")
    for header in ("simulated", "measured", "cost"):
        table.add_column(header, justify="right", no_wrap=True)
    for each in differences[:MAX_ROWS]:
        both = ("none" if value is None else format_ns(value) for value in (each.simulated_ns, each.measured_ns))
        table.add_row(_readable(each.name), *both, format_ns(each.cost_ns))
    return table


def _readable(name: str) -> str:
    return name.replace("_", " ").replace("/", ", ")


def _table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)

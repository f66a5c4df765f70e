"""Results as tables for the terminal, readable from 80 columns on.

``compare`` has exact schedules, approximate ones and refused ones in tables of their own, in the order that they are
given; ``simulate`` has a summary and where the time goes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cost_models.topology import spoken_link
from simulator.result import Refused, SimulationResult, StepTimes
from traces.display import format_bytes, format_ns

if TYPE_CHECKING:
    from rich.table import Table

NUMBER_COLUMNS = ("forward", "backward", "total", "exposed\ncomm.", "peak\nmemory", "fits", "sent\nper GPU")
LISTED_LINKS, LISTED_TRANSFERS = 8, 4
"""Saturated links, and transfers of each, that are listed."""

WIDE = 100
"""Terminal columns from which there is room for wide gaps."""


def compare_tables(outcomes: Sequence[SimulationResult | Refused], width: int) -> list[Table]:
    """Tables of exact, approximate and refused schedules, those that are not empty.

    Parameters
    ----------
    outcomes : as ``compare`` returns them.
    width : of the terminal.
    """
    results = [each for each in outcomes if isinstance(each, SimulationResult)]
    refused = [each for each in outcomes if isinstance(each, Refused)]
    groups = {"Exact": [each for each in results if each.exact], "Approximate": [e for e in results if not e.exact]}
    tables = [_results_table(title, group, width) for title, group in groups.items() if group]
    return tables + ([_refused_table(refused, width)] if refused else [])


def simulate_tables(result: SimulationResult) -> list[Table]:
    """Tables of one result: what came out, and the parts of the critical rank's time."""
    summary = new_table(result.schedule)
    summary.add_column(no_wrap=True, style="dim")
    summary.add_column(overflow="fold")
    summary.show_header = False
    for name, text in _summary(result).items():
        summary.add_row(name, text)
    tables = [summary, *([_breakdown_table(result.breakdown)] if result.breakdown else [])]
    return [*tables, *([_saturated_table(result)] if result.saturated_links else [])]


def new_table(title: str, gap: int = 2) -> Table:
    """A table with a rule under its header and columns ``gap`` apart, one of which the box has."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    return Table(title=escape(title), title_justify="left", title_style="bold", min_width=len(title),
                 box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0))  # fmt: skip


def _results_table(title: str, results: Sequence[SimulationResult], width: int) -> Table:
    gap = 2 if width >= WIDE else 1
    rows = [_numbers(result) for result in results]
    columns = zip(NUMBER_COLUMNS, *rows, strict=True)
    numbers_width = sum(max(len(line) for text in column for line in text.split("\n")) + gap for column in columns)
    table = new_table(title, gap)
    table.add_column("schedule", overflow="fold")
    for name in NUMBER_COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for result, row in zip(results, rows, strict=True):
        table.add_row(wrapped_name(result.schedule, width - numbers_width), *row)
    return table


def _numbers(result: SimulationResult) -> list[str]:
    times = (result.forward_s, result.backward_s, result.time_s, result.exposed_communication_s)
    sent = format_bytes(max(result.bytes_sent_per_rank, default=0))
    return [*map(_time, times), format_bytes(result.peak_memory_bytes), _yes(result.fits), sent]


def _refused_table(refused: Sequence[Refused], width: int) -> Table:
    from rich.markup import escape

    table = new_table("Refused")
    table.add_column("schedule", overflow="fold")
    table.add_column("reason", overflow="fold")
    for each in refused:
        table.add_row(wrapped_name(each.schedule, width // 3), escape(each.reason))
    return table


def _summary(result: SimulationResult) -> dict[str, str]:
    sent = result.bytes_sent_per_rank
    return {
        "time": f"{_time(result.time_s)}  ({_interval(result)})",
        "forward, backward": f"{_time(result.forward_s)}, {_time(result.backward_s)}",
        "compute": _time(result.compute_s),
        "communication": f"{_time(result.communication_s)}, exposed {_time(result.exposed_communication_s)}",
        "peak memory": _memory(result),
        "sent per GPU": f"{format_bytes(max(sent, default=0))}, all GPUs {format_bytes(sum(sent))}",
        "attended pairs": f"{result.pairs_total:,} per head and row",
        "work per GPU": f"most {result.rank_imbalance:.2f} x mean, step by step {result.step_imbalance:.2f} x",
        "operations": f"{result.flop_total:.4g} FLOP",
        **({"step times": _spread(result.step_times)} if result.step_times else {}),
        "exact": _yes(result.exact),
        "engine": result.engine,
    }


def _memory(result: SimulationResult) -> str:
    reserved, host = result.reserved_memory_bytes, result.host_memory_bytes
    slack = f", {format_bytes(reserved)} with the allocator's slack" if reserved > result.peak_memory_bytes else ""
    away = f"; {format_bytes(host)} in memory of the host" if host else ""
    return f"{format_bytes(result.peak_memory_bytes)}{slack}, {'fits' if result.fits else 'does not fit'}{away}"


def _spread(times: StepTimes) -> str:
    return (
        f"mean {_time(times.mean_s)}, 5 % below {_time(times.p5_s)}, 5 % above {_time(times.p95_s)}, at most "
        f"{_time(times.max_s)} ({times.draws} draws, jitter {times.jitter:g})"
    )


def _interval(result: SimulationResult) -> str:
    bounds = result.uncertainty
    note = ", beyond what was calibrated" if bounds.extrapolated else ""
    return f"{bounds.level:.0%}: {_time(bounds.low_s)} to {_time(bounds.high_s)}{note}"


def _breakdown_table(parts: Mapping[str, int]) -> Table:
    table = new_table("Where the time goes, critical rank")
    table.add_column("part", overflow="fold")
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    total_ns = sum(parts.values())
    for name, time_ns in parts.items():
        table.add_row(name.replace("_", " ").replace("/", ", "), format_ns(time_ns), f"{time_ns / (total_ns or 1):.1%}")
    return table


def _saturated_table(result: SimulationResult) -> Table:
    from rich.markup import escape

    found = result.saturated_links
    table = new_table("Saturated links" + (f", {LISTED_LINKS} of {len(found)}" if len(found) > LISTED_LINKS else ""))
    table.add_column("link", overflow="fold")
    table.add_column("full for", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("slowed most", overflow="fold")
    for each in found[:LISTED_LINKS]:
        slowed = ", ".join(one.transfer for one in each.slowed[:LISTED_TRANSFERS])
        more = f" and {len(each.slowed) - LISTED_TRANSFERS} more" if len(each.slowed) > LISTED_TRANSFERS else ""
        share = f"{each.saturated_s / (result.time_s or 1):.1%}"
        table.add_row(escape(spoken_link(each.link)), _time(each.saturated_s), share, escape(slowed + more))
    return table


def wrapped_name(schedule: str, width: int) -> str:
    """A name of a schedule or candidate, broken after commas, colon and spaces where it is too long for its column."""
    from rich.markup import escape

    lines = [""]
    for part in re.findall(r"[^,: ]*[,: ]|[^,: ]+", schedule):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return escape("\n".join(lines))


def _time(seconds: float) -> str:
    return format_ns(seconds * 1e9)


def _yes(value: bool) -> str:
    return "yes" if value else "no"

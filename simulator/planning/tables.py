"""Plans and sweeps as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from simulator.planning.entries import Entry
from simulator.planning.plan import PlanResult
from simulator.planning.reasons import kinds_of
from simulator.tables import new_table, wrapped_name
from traces.display import format_bytes, format_ns

if TYPE_CHECKING:
    from rich.table import Table

MOST_REASONS = 12
MOST_ROWS = 60
PART_NAMES = {
    "flop": "tensor cores", "hbm": "memory bandwidth", "host": "host", "nvlink": "NVLink", "c2c": "C2C", "pcie": "PCIe",
    "sys": "link between CPUs", "net": "network",
}  # fmt: skip


def plan_tables(found: PlanResult) -> list[Table]:
    """The best candidates, the Pareto front, what would help, and why the others are out."""
    tables = [_best(found), _front(found)]
    if found.sensitivity:
        tables.append(_sensitivity(found.sensitivity))
    return tables + ([_dropped(found.dropped)] if found.dropped else [])


def _best(found: PlanResult) -> Table:
    table = new_table(f"Best by {found.objective}" + (", interrupted" if found.interrupted else ""))
    table.add_column("candidate", overflow="fold")
    for name in ("time,\n90 %", "tokens/s\nper GPU", "peak\nmemory", "USD per\nM tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("limited by", overflow="fold")
    for each in found.candidates:
        table.add_row(_named(each), *_measures(each), _limits(each["limits"]))
    return table


NAME_WIDTH = 34

UNSAID = (" tp=1", " dp=1", " pp=1", " checkpoint=none")
"""Settings that a table leaves out of a candidate's name."""


def _brief(candidate: str) -> str:
    for text in UNSAID:
        candidate = f"{candidate} ".replace(f"{text} ", " ").strip()
    return wrapped_name(candidate, NAME_WIDTH)


def _named(entry: Entry) -> str:
    remarks = {
        "approximate": not entry.get("exact", True),
        "estimated": entry.get("estimated"),
        "without interference, so faster than it is": entry.get("interference_neglected"),
    }
    return _brief(entry["candidate"]) + "".join(f" ({remark})" for remark, holds in remarks.items() if holds)


def _measures(entry: Mapping[str, Any]) -> list[str]:
    cost = entry.get("usd_per_million_tokens")
    return [
        _time(entry),
        f"{entry['tokens_per_s_per_gpu']:.4g}",
        format_bytes(entry["peak_memory_bytes"]),
        "-" if cost is None else f"{cost:.3g}",
    ]


def _time(entry: Mapping[str, Any]) -> str:
    """With its 90 % interval below, where there is one."""
    time = format_ns(entry["time_s"] * 1e9)
    if "low_s" not in entry:
        return time
    return f"{time}\n{format_ns(entry['low_s'] * 1e9)} to\n{format_ns(entry['high_s'] * 1e9)}"


def _limits(limits: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(f"{each['part']} {each['share']:.0%}" for each in limits)


def _front(found: PlanResult) -> Table:
    table = new_table("Pareto front of time and memory")
    table.add_column("candidate", overflow="fold")
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("peak memory", justify="right", no_wrap=True)
    for each in found.pareto:
        table.add_row(_named(each), format_ns(each["time_s"] * 1e9), format_bytes(each["peak_memory_bytes"]))
    return table


def _sensitivity(sensitivity: Mapping[str, float]) -> Table:
    table = new_table("What would help the best: per cent of time for each per cent of")
    table.add_column("part")
    table.add_column("elasticity", justify="right")
    for part, elasticity in sensitivity.items():
        table.add_row(PART_NAMES[part], f"{elasticity:.2f}")
    return table


def _dropped(dropped: Sequence[Mapping[str, str]]) -> Table:
    """Kinds of reasons, each with its number of candidates; the JSON names them all."""
    kinds = kinds_of(dropped)
    table = new_table(f"Dropped: {len(dropped)} candidates")
    table.add_column("number", justify="right")
    table.add_column("reason (of the first)", overflow="fold")
    for kind in kinds[:MOST_REASONS]:
        table.add_row(str(kind.number), escape(kind.reason))
    if len(kinds) > MOST_REASONS:
        others = sum(kind.number for kind in kinds[MOST_REASONS:])
        table.add_row(str(others), f"{len(kinds) - MOST_REASONS} other reasons, all in the JSON")
    return table


def sweep_table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    """The options that vary, and the main numbers."""
    table = new_table(f"{len(rows)} points" + (f", the first {MOST_ROWS}" if len(rows) > MOST_ROWS else ""))
    for name in names:
        table.add_column(name.replace("_", " ").strip(), overflow="fold")
    for name in ("time", "exposed\ncomm.", "peak\nmemory", "fits"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows[:MOST_ROWS]:
        table.add_row(*(str(row[name]) for name in names), *_sweep_numbers(row))
    return table


def _sweep_numbers(row: Mapping[str, Any]) -> list[str]:
    if row["reason"] is not None:
        return [str(row["reason"]), "", "", ""]
    times = [format_ns(row[name] * 1e9) for name in ("time_s", "exposed_communication_s")]
    return [*times, format_bytes(row["peak_memory_bytes"]), "yes" if row["fits"] else "no"]

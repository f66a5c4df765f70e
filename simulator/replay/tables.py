"""Replays as tables for the terminal: errors by source and method, and why rows were skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from simulator.replay.run import ReplayRow
from simulator.replay.summary import Summary

if TYPE_CHECKING:
    from rich.table import Table


def replay_tables(rows: Sequence[ReplayRow], summaries: Sequence[Summary]) -> list[Table]:
    """Tables of a replay, those that are not empty."""
    tables = [_errors_table(summaries)]
    if any(row.skipped for row in rows):
        tables.append(_skipped_table(rows))
    return tables


def _errors_table(summaries: Sequence[Summary]) -> Table:
    table = _new_table("Predicted against published: |error|, and pairs of methods in the right order")
    table.add_column("source, method", overflow="fold", min_width=20)
    bare = any(each.unfitted_median is not None for each in summaries)
    names = ("rows", "fit", "skip", "median", "p95", "bias", *(("no fit", "") if bare else ()), "ordered")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for each in summaries:
        name = each.source if each.method is None else f"  {each.method}"
        shares: tuple[str, ...] = (_percent(each.median), _percent(each.p95), _percent(each.bias, sign=True))
        if bare:
            shares = (*shares, _percent(each.unfitted_median), _percent(each.unfitted_p95))
        pairs = f"{each.ordered / each.pairs:.0%} of {each.pairs}" if each.pairs else ""
        table.add_row(
            _escape(name), *map(str, (each.rows, each.fitted, each.skipped)), *shares, pairs,
            style="bold" if each.method is None else None,
        )  # fmt: skip
    return table


def _skipped_table(rows: Sequence[ReplayRow]) -> Table:
    table = _new_table("Skipped")
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("reason", overflow="fold")
    for reason, count in Counter(row.skipped for row in rows if row.skipped).most_common():
        table.add_row(str(count), _escape(reason))
    return table


def _new_table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(title=title, title_justify="left", title_style="bold", min_width=len(title), box=box.SIMPLE_HEAD,
                 show_edge=False, pad_edge=False)  # fmt: skip


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _percent(value: float | None, *, sign: bool = False) -> str:
    return "" if value is None else f"{value:+.1%}" if sign else f"{value:.1%}"

"""Tables that fit the terminal, with groups and order as the contract says."""

from __future__ import annotations

import pytest
from rich.console import Console
from rich.table import Table

from simulator.result import Refused, Uncertainty
from simulator.tables import compare_tables, simulate_tables
from tests.simulator.examples import example_result

LONG = "loongtrain:head=4,context=2,window=2,placement=head-first"
OUTCOMES = [
    example_result("ring:partition=zigzag,grad=fp32", 0.0123),
    example_result(LONG, 0.1234, fits=False, peak_memory_bytes=int(123.4 * 2**30)),
    example_result("apb:anchor=4k,passing=2k", 0.001, exact=False, bytes_sent_per_rank=(0, 123_456_789)),
    Refused("ulysses", "32 heads cannot be dealt to 48 GPUs; use a number of GPUs that divides 32"),
]


def render(tables: list[Table], width: int) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        for table in tables:
            console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_cut(width: int) -> None:
    lines = render(compare_tables(OUTCOMES, width), width)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    assert "…" not in text
    for cell in ("12.3 ms", "123 GiB", "no", "118 MiB", "loongtrain:head=4", "placement=head-first"):
        assert cell in text


def test_wide_terminals_have_a_schedule_per_line() -> None:
    lines = render(compare_tables(OUTCOMES[:3], 120), 120)
    assert sum("ms" in line for line in lines) == 3
    assert any(line.startswith(LONG) for line in lines)


def test_groups_keep_their_order() -> None:
    assert [table.title for table in compare_tables(OUTCOMES, 80)] == ["Exact", "Approximate", "Refused"]
    assert [table.title for table in compare_tables(OUTCOMES[:2], 80)] == ["Exact"]
    lines = render(compare_tables(OUTCOMES, 120), 120)
    rows = [line.split()[0] for line in lines if line.startswith(("ring", "loong", "apb", "ulysses"))]
    assert [row.partition(":")[0] for row in rows] == ["ring", "loongtrain", "apb", "ulysses"]


def test_markup_in_a_name_is_shown_as_it_is() -> None:
    lines = render(compare_tables([Refused("[red]x", "a [bold] reason")], 80), 80)
    assert any("[red]x" in line and "a [bold] reason" in line for line in lines)


@pytest.mark.parametrize("width", [80, 120])
def test_one_result(width: int) -> None:
    breakdown = {"compute/attention_forward/forward": 9_000_000, "communication/exchange/forward": 1_000_000, "idle": 0}
    result = example_result(breakdown=breakdown, fits=False, uncertainty=Uncertainty(0.01, 0.02, 0.9, True))
    lines = render(simulate_tables(result), width)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    assert "beyond what was calibrated" in text
    assert "does not fit" in text
    assert "90.0%" in text


def test_without_a_breakdown_there_is_only_the_summary() -> None:
    assert len(simulate_tables(example_result())) == 1

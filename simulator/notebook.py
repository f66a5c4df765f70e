"""Results as a notebook shows them when they are a cell's last value: the command line's tables, preformatted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import StringIO

from rich.console import Console, RenderableType
from rich.text import Text

from simulator.described import describe_inputs
from simulator.output import join_warnings
from simulator.result import Refused, SimulationResult
from simulator.tables import compare_tables, simulate_tables

WIDTH = 110
"""Characters of a line."""


def result_html(result: SimulationResult) -> str:
    """One result."""
    return _html([describe_inputs(result.inputs), *simulate_tables(result)], result.warnings)


def comparison_html(outcomes: Sequence[SimulationResult | Refused]) -> str:
    """All schedules, grouped as the command line groups them."""
    results = [each for each in outcomes if isinstance(each, SimulationResult)]
    heading = [describe_inputs(results[0].inputs)] if results else []
    return _html([*heading, *compare_tables(outcomes, WIDTH)], (text for each in results for text in each.warnings))


def _html(parts: list[RenderableType], warnings: Iterable[str]) -> str:
    console = Console(record=True, width=WIDTH, file=StringIO())
    console.print(*parts, sep="\n", highlight=False, markup=False)
    for warning in join_warnings(warnings):
        console.print(Text(f"warning: {warning}"))
    return console.export_html(code_format="<pre style='line-height: normal'>{code}</pre>", inline_styles=True)

"""Results to the terminal and to files: JSON, Chrome traces, an HTML report; each whole or not at all.

With ``--json -`` standard output holds the JSON and nothing else; tables then go to standard error, as warnings always
do.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from simulator.described import describe_inputs
from simulator.folders import whole_folder
from simulator.options import Outputs
from simulator.result import Refused, SimulationResult
from simulator.tables import compare_tables, simulate_tables
from traces.atomic import write_text_atomic
from traces.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Outcomes = Sequence[SimulationResult | Refused]
WriteRun = Callable[[SimulationResult, Path], None]


def write_outputs(outcomes: Outcomes, outputs: Outputs, *, many: bool) -> None:
    """Write what was asked for.

    Parameters
    ----------
    outcomes : results, and schedules refused.
    outputs : where to.
    many : whether JSON holds a list and traces a folder per schedule, however many there are.
    """
    results = [each for each in outcomes if isinstance(each, SimulationResult)]
    if outputs.trace is not None:
        _write_runs(results, outputs.trace, _write_trace, many=many)
    if outputs.chakra is not None:
        _write_runs(results, outputs.chakra, _write_chakra, many=many)
    if outputs.html is not None:
        _write_html(outcomes, outputs.html, many)
    write_json([each.to_json() for each in outcomes] if many else results[0].to_json(), outputs)


def write_json(data: object, outputs: Outputs) -> None:
    """Write an object as JSON to the file asked for, or to standard output."""
    if outputs.json is None:
        return
    text = json.dumps(data, indent=2, allow_nan=False) + "\n"
    if outputs.json == "-":
        sys.stdout.write(text)
    else:
        write_text_atomic(outputs.json, text)


def print_result(result: SimulationResult, outputs: Outputs) -> None:
    """Tables and warnings of one result."""
    console = _console(outputs)
    _print_line(console, describe_inputs(result.inputs))
    print_tables(simulate_tables(result), outputs)
    print_warnings(result.warnings)


def print_comparison(outcomes: Outcomes, outputs: Outputs) -> None:
    """Tables of a comparison, and every warning once."""
    console = _console(outputs)
    results = [each for each in outcomes if isinstance(each, SimulationResult)]
    _print_line(console, describe_inputs(results[0].inputs))
    print_tables(compare_tables(outcomes, console.width), outputs)
    print_warnings(join_warnings(dict.fromkeys(warning for result in results for warning in result.warnings)))


def print_tables(tables: Iterable[Table], outputs: Outputs) -> None:
    """Tables on standard output, or on standard error where that holds the JSON."""
    console = _console(outputs)
    for table in tables:
        console.print(table)
        console.print()


def print_warnings(warnings: Iterable[str]) -> None:
    """Warnings on standard error, a line each."""
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def join_warnings(warnings: Iterable[str]) -> list[str]:
    """Warnings that differ in one number of queries only, as one with their range.

    >>> join_warnings(["a: 2,048 queries, measured were 8", "b", "a: 512 queries, measured were 8"])
    ['a: 512 to 2,048 queries, measured were 8', 'b']
    """
    numbers: dict[str, list[int]] = {}
    for warning in warnings:
        found = re.match(r"([^:]*: )([\d,]+)( queries, .*)", warning)
        numbers.setdefault(found[1] + "{}" + found[3] if found else warning, [])
        if found:
            numbers[found[1] + "{}" + found[3]].append(int(found[2].replace(",", "")))
    return [text.replace("{}", _range(counts)) if counts else text for text, counts in numbers.items()]


def _range(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"


def _print_line(console: Console, text: str) -> None:
    """Text that is never cut into lines, and an empty line."""
    console.print(text, markup=False, highlight=False, soft_wrap=True, end="\n\n")


def _console(outputs: Outputs) -> Console:
    from rich.console import Console

    return Console(stderr=outputs.json == "-")


def _write_runs(results: Sequence[SimulationResult], folder: Path, write: WriteRun, *, many: bool) -> None:
    """A folder of files; of a comparison a folder for each schedule."""
    if not many:
        write(results[0], folder)
        return
    with whole_folder(folder) as temporary:
        for result in results:
            write(result, temporary / re.sub(r"[:,/]", "-", result.schedule))


def _write_trace(result: SimulationResult, folder: Path) -> None:
    from traces.perfetto import write_traces

    if result.timeline is None:
        raise _too_large(result)
    write_traces(result.timeline, folder, result.run.details if result.run else None)


def _write_chakra(result: SimulationResult, folder: Path) -> None:
    from simulator.chakra.export import export_chakra

    if result.run is None:
        raise _too_large(result)
    export_chakra(result.run.program, result.run.costs, folder)


def _too_large(result: SimulationResult) -> InputError:
    return InputError(f"{result.schedule} has too many operations to trace", remedy="ask for fewer gpus")


def _write_html(outcomes: Outcomes, path: Path, many: bool) -> None:
    from simulator.report import write_comparison_report, write_result_report

    if many:
        write_comparison_report(path, outcomes)
    elif isinstance(outcomes[0], SimulationResult):
        write_result_report(path, outcomes[0])

"""Commands ``plan`` and ``sweep``: many simulations, on all cores or on a Dask cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.options import Outputs, option, request_command

if TYPE_CHECKING:
    from simulator.planning.objective import Price
    from simulator.request import SimulationRequest

app = typer.Typer(rich_markup_mode=None, add_completion=False)

OVER = option(
    "over",
    Annotated[
        list[str], typer.Option(metavar="OPTION='VALUE ...'", help="Values to try: a list, or a range as 64k..1M.")
    ],
    [],
)
WHERE = (
    option("workers", Annotated[int | None, typer.Option(metavar="N", help="Processes. Default: one per core.")], None),
    option("scheduler", Annotated[str | None, typer.Option(metavar="tcp://HOST:PORT", help="A Dask cluster.")], None),
    option("cache", Annotated[Path | None, typer.Option(metavar="FOLDER", help="Keep and reuse outcomes.")], None),
)

KEPT = ("over", "workers", "scheduler", "cache")


@app.command()
@request_command(
    option(
        "objective", Annotated[str, typer.Option(metavar="time|throughput|memory|cost", help="What is best.")], "time"
    ),
    option("top", Annotated[int, typer.Option(metavar="N", help="Candidates to show.")], 5),
    option("every", Annotated[bool, typer.Option("--every", help="All degrees, placements and partitioners.")], False),
    option("approximate", Annotated[bool, typer.Option("--approximate", help="Approximate ones too.")], False),
    option("price", Annotated[float | None, typer.Option(metavar="USD", help="Of a GPU for an hour.")], None),
    OVER,
    *WHERE,
    keep=("objective", "top", "every", "approximate", "price", *KEPT),
    without=("trace", "chakra", "engine"),
    layers="model",
)
def plan(
    request: SimulationRequest,
    outputs: Outputs,
    *,
    objective: str,
    top: int,
    every: bool,
    approximate: bool,
    price: float | None,
    over: list[str],
    workers: int | None,
    scheduler: str | None,
    cache: Path | None,
) -> None:
    """Find the best schedule, degrees, kernel and checkpointing. Says why, and why not the others."""
    from simulator.output import print_tables, write_json
    from simulator.planning.axes import parse_axes
    from simulator.planning.plan import plan as search
    from simulator.planning.report import write_plan_report
    from simulator.planning.runners import open_runner
    from simulator.planning.tables import plan_tables
    from simulator.progress import show_progress

    axes = parse_axes(over)
    with open_runner(workers, scheduler) as runner, show_progress() as progress:
        found = search(
            request, runner, objective=objective, top=top, axes=axes, every=every, approximate=approximate,
            price=_price(price), progress=progress, cache_folder=_folder(cache),
        )  # fmt: skip
    if outputs.html is not None:
        write_plan_report(outputs.html, found, request)
    write_json(found.to_json(), outputs)
    print_tables(plan_tables(found), outputs)


@app.command()
@request_command(
    option(
        "schedule", Annotated[str | None, typer.Option(metavar="NAME[:key=value,...]", help="Unless it varies.")], None
    ),
    OVER,
    option("table", Annotated[Path | None, typer.Option(metavar="FILE", help="Write .csv or .parquet.")], None),
    *WHERE,
    keep=("table", *KEPT),
    without=("trace", "chakra"),
    gpus=1,
    seq_len="128k",
)
def sweep(
    request: SimulationRequest,
    outputs: Outputs,
    *,
    over: list[str],
    table: Path | None,
    workers: int | None,
    scheduler: str | None,
    cache: Path | None,
) -> None:
    """Simulate every combination of values of any options. A table has a row for each."""
    from simulator.output import print_tables, print_warnings, write_json
    from simulator.planning.axes import parse_axes
    from simulator.planning.report import write_sweep_report
    from simulator.planning.runners import open_runner
    from simulator.planning.sweep import check_table, run_sweep, write_table
    from simulator.planning.tables import sweep_table
    from simulator.progress import show_progress

    check_table(table)
    axes = parse_axes(over)
    with open_runner(workers, scheduler) as runner, show_progress() as progress:
        rows, complete = run_sweep(request, axes, runner, progress=progress, cache_folder=_folder(cache))
    if table is not None:
        write_table(rows, table)
    if outputs.html is not None:
        write_sweep_report(outputs.html, rows, axes, request.schedule)
    write_json(rows, outputs)
    print_tables([sweep_table(rows, list(axes))], outputs)
    if not complete:
        print_warnings(["interrupted: the table holds what was done"])


def _price(usd: float | None) -> Price | None:
    from simulator.planning.objective import Price
    from traces.errors import InputError

    if usd is None:
        return None
    if not 0 < usd < 1e6:
        raise InputError("price is not a positive number of dollars", got=usd)
    return Price(usd, "given")


def _folder(cache: Path | None) -> str | None:
    return None if cache is None else str(cache.absolute())

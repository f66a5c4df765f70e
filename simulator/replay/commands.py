"""Command ``replay``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simulator.options import JsonTarget, Outputs

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def replay(
    source: Annotated[str, typer.Argument(metavar="SOURCE|all", help="Source of published measurements.")],
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Predict these rows instead of the source's own.")
    ] = None,
    json: JsonTarget = None,
) -> None:
    """Predict published measurements, and show the errors.

    They are listed by source and method.
    """
    from simulator.output import print_tables, write_json
    from simulator.progress import show_progress
    from simulator.replay import replay as run
    from simulator.replay import summarise
    from simulator.replay.tables import replay_tables
    from simulator.result import SCHEMA_VERSION

    with show_progress() as progress:
        results = run(source, rows, progress)
    summaries = summarise(results)
    outputs = Outputs(json)
    rows_json = [row.to_json() for row in results]
    summary = [each.to_json() for each in summaries]
    write_json({"schema_version": SCHEMA_VERSION, "rows": rows_json, "summary": summary}, outputs)
    print_tables(replay_tables(results, summaries), outputs)


@app.callback()
def _group() -> None:
    """A callback keeps a single command a subcommand."""

"""Commands ``trace ...``: what traces say, how they differ, and what would be.

A source is a folder or files of Kineto traces (one per rank, gzip or not), or one record of ours: ``.npz``, ``.jsonl``,
``.jsonl.gz`` or ``.parquet``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.options import JsonTarget, Outputs

if TYPE_CHECKING:
    from traces.kineto.recording import Recording

app = typer.Typer(rich_markup_mode=None, add_completion=False)
trace = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)
app.add_typer(trace, name="trace", help="Traces: summarise, compare, convert, and simulate again.")

Sources = Annotated[list[Path], typer.Argument(metavar="TRACES...", help="Folder or files, one per rank, or a record.")]
HtmlTarget = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with figures.")]


@app.callback()
def _group() -> None:
    """Keep the group's name although it is the only command."""


@trace.command()
def summary(traces: Sources, json: JsonTarget = None, html: HtmlTarget = None) -> None:
    """Show busy, exposed communication, overlap, idle by cause and the critical path, per rank and step."""
    from simulator.output import print_tables, print_warnings, write_json
    from simulator.trace_tables import summary_tables
    from traces.summary import summarise

    recording = _load(traces)
    outputs = Outputs(json)
    found = summarise(recording)
    if html is not None:
        from traces.summary_report import write_summary_report

        write_summary_report(html, found, recording.timeline)
    write_json(found.to_json(), outputs)
    print_tables(summary_tables(found), outputs)
    print_warnings(found.warnings)


@trace.command()
def diff(
    simulated: Annotated[Path, typer.Argument(help="Simulated: a folder of traces or a record.")],
    measured: Annotated[Path, typer.Argument(help="Measured: likewise.")],
    step: Annotated[
        str | None, typer.Option(metavar="N", help="Step of the measured trace. Default: the fastest.")
    ] = None,
    json: JsonTarget = None,
    html: HtmlTarget = None,
) -> None:
    """Compare a simulated and a measured run: what differs, ranked by what it costs."""
    from simulator.output import print_tables, print_warnings, write_json
    from simulator.trace_tables import difference_tables
    from traces.differences import compare_timelines, select_step

    ours, theirs = _load([simulated]), _load([measured])
    timelines = select_step(ours), select_step(theirs, step)
    comparison = compare_timelines(*timelines)
    outputs = Outputs(json)
    if html is not None:
        from traces.difference_report import write_difference_report

        write_difference_report(html, comparison, *timelines)
    write_json(comparison.to_json(), outputs)
    print_tables(difference_tables(comparison), outputs)
    print_warnings((*ours.warnings, *theirs.warnings))


@trace.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A folder of traces, a trace, or a record.")],
    target: Annotated[Path, typer.Argument(help="FILE.npz, .jsonl, .jsonl.gz or .parquet; or a folder for traces.")],
) -> None:
    """Write a timeline in another format."""
    from simulator.output import print_warnings
    from traces.sources import save_recording

    recording = _load([source])
    save_recording(recording, target)
    left = ("records and traces hold the timeline: steps, calls and waits of the host stay behind",)
    print_warnings((*recording.warnings, *(left if any(recording.windows) or any(recording.syncs) else ())))


def _load(paths: list[Path]) -> Recording:
    from traces.sources import load_recording

    return load_recording(paths)

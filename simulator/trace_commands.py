"""Commands ``trace ...``: what traces say, how they differ, and what would be.

A source is a folder or files of Kineto traces (one per rank, gzip or not), or one record of ours: ``.npz``, ``.jsonl``,
``.jsonl.gz`` or ``.parquet``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.options import JsonTarget, Outputs
from traces.errors import InputError

if TYPE_CHECKING:
    from traces.kineto.recording import Recording

app = typer.Typer(rich_markup_mode=None, add_completion=False)
trace = typer.Typer(rich_markup_mode=None, add_completion=False)
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


@trace.command("what-if")
def what_if(
    traces: Sources,
    link: Annotated[float, typer.Option(metavar="X", help="Links X times faster.")] = 1.0,
    compute: Annotated[float, typer.Option(metavar="X", help="All kernels X times faster.")] = 1.0,
    host: Annotated[float, typer.Option(metavar="X", help="Host X times faster.")] = 1.0,
    gpu: Annotated[str | None, typer.Option(metavar="NAME", help="Another GPU; needs --recorded-on.")] = None,
    recorded_on: Annotated[str | None, typer.Option(metavar="NAME", help="The GPU that was recorded.")] = None,
    slow_rank: Annotated[
        list[str] | None, typer.Option(metavar="RANK=X", help="A rank that computes X times slower.")
    ] = None,
    overlap: Annotated[
        str, typer.Option(metavar="recorded|none|full", help="What computation waits for.")
    ] = "recorded",
    json: JsonTarget = None,
    trace: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write the changed run as traces.")] = None,
) -> None:
    """Simulate a recorded run again: unchanged, and with a faster link, another GPU, another overlap or a slow rank.

    Chakra execution traces (NAME.RANK.et) are taken too; nothing of them is measured.
    """
    from simulator.chakra.load import load_chakra
    from simulator.output import print_tables, print_warnings, write_json
    from simulator.trace_tables import what_if_tables
    from simulator.traced.what_if import Changes, ask, ask_program

    speeds = {"*": compute} if gpu is None else _speeds(gpu, recorded_on, compute)
    changes = Changes(link, host, speeds, dict(map(_slow_rank, slow_rank or [])), overlap)
    chakra = _is_chakra(traces)
    answer = ask_program(load_chakra(traces), changes) if chakra else ask(_load(traces), changes)
    outputs = Outputs(json)
    if trace is not None:
        from traces.perfetto import write_traces

        write_traces(answer.timeline, trace)
    write_json(answer.to_json(), outputs)
    print_tables(what_if_tables(answer), outputs)
    print_warnings(answer.warnings)


@trace.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A folder of traces, a trace, or a record.")],
    target: Annotated[Path, typer.Argument(help="FILE.npz, .jsonl, .jsonl.gz or .parquet; or a folder for traces.")],
    json: JsonTarget = None,
) -> None:
    """Write a timeline in another format."""
    from simulator.output import print_warnings, write_json
    from traces.sources import save_recording

    recording = _load([source])
    save_recording(recording, target)
    left = ("records and traces hold the timeline: steps, calls and waits of the host stay behind",)
    warnings = (*recording.warnings, *(left if any(recording.windows) or any(recording.syncs) else ()))
    timeline = recording.timeline
    counts = {"n_ranks": timeline.n_ranks, "rows": len(timeline), "operations": len(timeline.operations)}
    report = {"target": str(target), **counts, "time_s": timeline.makespan_ns / 1e9, "warnings": warnings}
    write_json(report, Outputs(json))
    print_warnings(warnings)


def _speeds(gpu: str, recorded_on: str | None, compute: float) -> dict[str, float]:
    from cost_models.hardware import load_hardware
    from simulator.traced.what_if import gpu_speeds

    if recorded_on is None:
        raise InputError("another GPU than which", remedy="name the recorded one with --recorded-on")
    speeds = gpu_speeds(load_hardware(recorded_on), load_hardware(gpu))
    return {kind: speed * compute for kind, speed in speeds.items()}


def _slow_rank(text: str) -> tuple[int, float]:
    rank, _, factor = text.partition("=")
    try:
        return int(rank), float(factor)
    except ValueError:
        raise InputError("slow rank", got=text, expected="RANK=FACTOR, as in 3=1.5") from None


def _is_chakra(paths: list[Path]) -> bool:
    folder = len(paths) == 1 and paths[0].is_dir()
    return any(path.suffix == ".et" for path in (paths[0].iterdir() if folder else paths))


def _load(paths: list[Path]) -> Recording:
    from traces.sources import load_recording

    return load_recording(paths)

"""Command ``calibrate``: measure what is missing on this GPU, fit its profile to the records, report the errors."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.options import JsonTarget, Outputs
from traces.errors import InputError
from validators.shown import shown_path

if TYPE_CHECKING:
    from cost_models.calibration.fit import Calibration

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.callback()
def commands() -> None:
    """Keep the command's name, although it is the only one here."""


RECORDS = Path(__file__).with_name("records")


@app.command()
def calibrate(
    hardware: Annotated[str, typer.Option(metavar="NAME", help="Profile to fit: h100-sxm, h200-sxm, ...")],
    records: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Records. Default: those that come along.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure here what the records lack, before the fit.")
    ] = False,
    minutes: Annotated[float, typer.Option(metavar="M", help="No measurement is begun after them.")] = 10.0,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Measure every N-th of what is missing, from the I-th.")
    ] = "0/1",
    runs: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Runs of `validate`, to fit isolated calls and intervals to; repeatable."),
    ] = None,
    network: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Records network-*.jsonl: fit links, and host and intervals with --runs, of such a node.",
        ),
    ] = None,
    topology: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", help="Of runs and networks. Default: a usual node, of two GPUs a measured pair."
        ),
    ] = None,
    fit: Annotated[bool, typer.Option("--fit/--no-fit", help="Fit the profile.")] = True,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the calibrated terms (TOML).")] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report (Markdown).")] = None,
    json: JsonTarget = None,
) -> None:
    """Measure a GPU and fit its profile. Reports the errors on what was left out of the fit."""
    if network is not None:
        from validators.validation.pair_fit import fit_pair

        text, shown = fit_pair(network, runs or [], hardware, topology)
        _write_links(text, shown, output, report)
        return
    folder = records or RECORDS / hardware
    if measure:
        _measure(folder, minutes, shard)
    if not fit:
        return
    from cost_models.calibration import calibrate as run
    from cost_models.calibration.report import render_report
    from cost_models.hardware import load_hardware
    from simulator.output import write_json
    from traces.atomic import write_text_atomic
    from traces.records import latest, read_folder

    files = read_folder(folder)
    machines = [dict(machine) for file in files for machine in file.machines.values()]
    done = run(latest(files), load_hardware(hardware), machines=machines, progress=_say)
    if runs:
        done = _with_calls(done, runs, hardware, topology)
    where = f"records in {shown_path(folder)}, {sum(done.outcomes.values())} cases"
    if output:
        write_text_atomic(output, done.overlay(where))
    text = render_report(done, where)
    if report:
        write_text_atomic(report, text)
    outputs = Outputs(json)
    write_json(done.summary(), outputs)
    if json != "-":
        print(text)


def _write_links(profile: str, shown: str, output: Path | None, report: Path | None) -> None:
    """Print the report, write what is asked for."""
    from traces.atomic import write_text_atomic

    if output:
        write_text_atomic(output, profile)
    if report:
        write_text_atomic(report, shown)
    print(shown)


def _with_calls(done: Calibration, runs: list[Path], hardware: str, topology: str | None) -> Calibration:
    """The fit, and terms of isolated calls under the fitted kernels."""
    from cost_models.hardware.load import load_with_overlay
    from validators.validation.call_fit import fit_calls
    from validators.validation.runs import RunFolder

    profile = load_with_overlay(hardware, done.overlay("this fit"))
    found = fit_calls([RunFolder(each) for each in runs], profile, topology)
    count = found.runs
    terms = {name: getattr(found, name) for name in ("isolated", "isolated_error", "call_error")}
    return replace(done, calls=terms, calls_reference=f"{count} runs in {', '.join(map(shown_path, runs))}")


def _measure(folder: Path, minutes: float, shard: str) -> None:
    import torch

    from traces.records import open_records
    from validators.bench.runner import full_plan, run_plan

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type != "cuda":
        raise InputError("calibrate --measure: no CUDA device here", remedy="run it on a node with a GPU")
    first, count = _read_shard(shard)
    file = open_records(folder / "kernels.jsonl")
    _say(str(run_plan(full_plan(), file, device, minutes=minutes, shard=(first, count), report=_say)))


def _read_shard(text: str) -> tuple[int, int]:
    first, _, count = text.partition("/")
    if not (first.isdecimal() and count.isdecimal() and int(first) < int(count)):
        raise InputError("calibrate: shard is not I/N", got=text, expected="such as 0/4, with I below N")
    return int(first), int(count)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

"""Command ``validate``: draw, measure, compare; or compare what was measured before.

Measuring needs PyTorch and the machine; comparing needs neither. On several nodes, start the worker on each with
torchrun (`validators.validation.worker`) and compare the folder afterwards.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.options import JsonTarget, Outputs
from traces.errors import InputError

if TYPE_CHECKING:
    from validators.validation.forecast import GpuPredictor, HostPredictor

app = typer.Typer(rich_markup_mode=None, add_completion=False)

TOLERANCE = {"gloo": 0.10, "nccl": 0.025}


@app.callback()
def _group() -> None:
    """A callback keeps a single command a subcommand."""


@app.command()
def validate(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Measured runs; measuring adds to it and resumes.")],
    backend: Annotated[str, typer.Option(metavar="gloo|nccl", help="Processes on CPUs, or GPUs.")] = "nccl",
    gpus: Annotated[int | None, typer.Option(metavar="P", help="Ranks to measure with; none: only compare.")] = None,
    hardware: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="GPU profile; with gloo the host's profile, a JSON file.")
    ] = None,
    topology: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Of the GPUs; default by what NCCL was told.")
    ] = None,
    draws: Annotated[int, typer.Option(metavar="N", help="Configurations to draw.")] = 20,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the draws.")] = 0,
    rounds: Annotated[int, typer.Option(metavar="N", help="Isolated calls of every schedule.")] = 5,
    seconds: Annotated[float, typer.Option(metavar="S", help="No configuration is begun after that.")] = 540.0,
    peers: Annotated[bool, typer.Option("--peers", help="Draw other people's implementations too.")] = False,
    steps: Annotated[bool, typer.Option("--steps", help="Draw training steps of models.")] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Draw runs near the limit of memory, and ask only whether they fit.")
    ] = False,
    tokens: Annotated[
        str | None, typer.Option(metavar="LEAST-MOST", help="Lengths to draw from, instead of the usual ones.")
    ] = None,
    longest: Annotated[
        float | None, typer.Option(metavar="S", help="Longest predicted call of a draw. Default: 2.")
    ] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Draw for --gpus and write FOLDER/draws-P.json; measure nothing.")
    ] = False,
    tolerance: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Largest median |error|. Default: 0.025, gloo 0.10.")
    ] = None,
    json: JsonTarget = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a report with figures.")] = None,
) -> None:
    """Run schedules for real and say how wrong predictions were. Exits with 1 past the tolerance."""
    if backend not in TOLERANCE:
        raise InputError("unknown backend", got=repr(backend), expected="gloo or nccl")
    if gpus is not None:
        if backend == "nccl":
            predictor, lengths = _gpu_predictor(hardware, topology), _lengths(tokens)
            if steps:
                _draw_steps(folder, gpus, predictor, draws, seed, rounds, lengths)
            _draw(folder, gpus, predictor, draws, seed, rounds, peers, memory, lengths, longest)
        if plan_only:
            return
        _measure(folder, backend, gpus, draws, seed, rounds, seconds)
    limit = TOLERANCE[backend] if tolerance is None else tolerance
    if not _compare(folder, _predictor(folder, backend, hardware, topology), limit, Outputs(json, None, html)):
        raise typer.Exit(1)


def _draw(
    folder: Path, gpus: int, predictor: GpuPredictor, draws: int, seed: int, rounds: int, peers: bool, memory: bool,
    lengths: tuple[int, int] | None, longest_s: float | None,
) -> None:  # fmt: skip
    """Write the plan, unless it is there from an earlier run."""
    from dataclasses import replace

    from simulator.compare import PEER_CHOICES
    from validators.validation.draws import GPU, SINGLE, draw_memory_plan, draw_plan
    from validators.validation.plan import write_plan

    plan = folder / f"draws-{gpus}.json"
    if plan.exists():
        return
    ranges = SINGLE if gpus == 1 else GPU
    if lengths:
        ranges = replace(ranges, seq_len=lengths)
    if longest_s is not None:
        ranges = replace(ranges, most_s=longest_s)
    if peers:
        ranges = replace(ranges, schedules=(*ranges.schedules, *PEER_CHOICES), per_draw=ranges.per_draw + 3)
    folder.mkdir(parents=True, exist_ok=True)
    if memory:
        write_plan(plan, draw_memory_plan(ranges, gpus, draws, seed, predictor.memory_share))
    else:
        write_plan(plan, draw_plan(ranges, gpus, draws, seed, rounds, predictor.forecast()))


def _lengths(text: str | None) -> tuple[int, int] | None:
    """LEAST-MOST as numbers."""
    if text is None:
        return None
    least, _, most = text.partition("-")
    if not (least.isdecimal() and most.isdecimal() and 256 <= int(least) <= int(most)):
        raise InputError("lengths to draw from are no range", got=repr(text), expected="LEAST-MOST, such as 1024-8192")
    return int(least), int(most)


def _draw_steps(
    folder: Path, gpus: int, predictor: GpuPredictor, draws: int, seed: int, rounds: int,
    lengths: tuple[int, int] | None,
) -> None:  # fmt: skip
    """Write a plan of steps, unless there is a plan from an earlier run."""
    from validators.validation.plan import write_plan
    from validators.validation.step_draws import TOKENS, draw_steps

    plan = folder / f"draws-{gpus}.json"
    if not plan.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_plan(plan, draw_steps(draws, seed, rounds, predictor.forecast(), lengths or TOKENS, gpus))


def _measure(folder: Path, backend: str, gpus: int, draws: int, seed: int, rounds: int, seconds: float) -> None:
    from validators.validation.runs import RUNS
    from validators.validation.session import launch, validate_processes

    if backend == "gloo":
        validate_processes(folder, ranks=gpus, draws=draws, seed=seed, rounds=rounds, seconds=seconds)
    else:
        launch(folder / f"draws-{gpus}.json", folder / RUNS, backend=backend, ranks=gpus, seconds=seconds)


def _predictor(
    folder: Path, backend: str, hardware: str | None, topology: str | None
) -> GpuPredictor | HostPredictor:  # fmt: skip
    from cost_models.processes import load_processes
    from validators.validation.forecast import HostPredictor
    from validators.validation.session import PROFILE

    if backend == "gloo":
        return HostPredictor(load_processes(hardware or folder / PROFILE))
    return _gpu_predictor(hardware, topology)


def _gpu_predictor(hardware: str | None, topology: str | None) -> GpuPredictor:
    from validators.validation.forecast import GpuPredictor

    if hardware is None:
        raise InputError(
            "predictions for GPUs need a profile", remedy="give --hardware, and --topology of several nodes"
        )
    return GpuPredictor(hardware, topology)


def _compare(folder: Path, predictor: GpuPredictor | HostPredictor, limit: float, outputs: Outputs) -> bool:
    """Tables and files; whether the median error is within the limit and no result was wrong."""
    import numpy as np

    from simulator.output import print_tables, print_warnings, write_json
    from validators.validation.compare import compare_folders, compare_memory, table_of, worst_with_timelines
    from validators.validation.forecast import GpuPredictor
    from validators.validation.report import describe, write_html
    from validators.validation.runs import open_folders

    folders = open_folders(folder)
    agreements = compare_folders(folders, predictor)
    runs = [run for each in folders for run in each.runs.values()]
    gpus = isinstance(predictor, GpuPredictor)
    memory = [asked for each in folders for asked in compare_memory(each, predictor)] if gpus else []
    write_json(describe(agreements, runs, memory), outputs)
    if outputs.html is not None:
        chosen = worst_with_timelines(folders, predictor, agreements)
        write_html(outputs.html, f"Predictions against {folder.name}", agreements, runs, chosen)
    print_tables([table_of(agreements)] if agreements else [], outputs)
    if memory:
        right = sum(each["predicted"] == each["measured"] for each in memory)
        print_warnings([f"{right} of {len(memory)} runs fit, or did not, as predicted"])
    wrong = [run for run in runs if run.outcome == "wrong"]
    errors = [abs(each.error) for each in agreements]
    return not wrong and (not errors or float(np.median(errors)) <= limit)

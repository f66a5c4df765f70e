"""Measures a plan in the processes that torchrun starts; one process per rank runs this, on every node.

    torchrun --nproc-per-node 8 -m validators.validation.worker --backend nccl --plan plan.json --out runs

It needs PyTorch and NumPy only. What is in the folder already is not measured again, nor what has ended the processes
before, and no configuration is begun after ``--seconds``: to go on, run it again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from validators.bench.machine import describe_machine
from validators.executors.cores import take_cores
from validators.executors.world import BACKENDS, World
from validators.validation.attempts import Attempts
from validators.validation.measure import Measurement
from validators.validation.plan import Planned, read_plan
from validators.validation.runs import RunFolder
from validators.validation.step_configuration import StepConfiguration
from validators.validation.step_measure import StepMeasurement


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the plan says; 1 if a result was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, required=True)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument(
        "--memory-share", type=float, default=1.0, help="of the GPU, for runs that ask whether they fit"
    )
    parser.add_argument("--no-priority", action="store_true", help="NCCL's streams as PyTorch makes them by default")
    parser.add_argument("--threads", type=int, default=1, help="of each process, on CPUs")
    options = parser.parse_args(arguments)
    if options.backend == "gloo":
        take_cores()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    world = World(options.backend, prioritised=not options.no_priority)
    machine = describe_machine(world.device) | {"threads": options.threads}
    if options.no_priority:
        machine["communication_first"] = False
    if options.memory_share < 1 and world.device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(options.memory_share, world.device)
        machine["memory_share"] = options.memory_share
    wrong = measure_plan(world, read_plan(options.plan), options.out, options.seconds, machine)
    world.leave()
    return 1 if wrong else 0


def measure_plan(world: World, plan: list[Planned], out: Path, seconds: float, machine: Mapping[str, Any]) -> int:
    """Measure what is planned for so many ranks and not there yet; how many results were wrong."""
    end, wrong = time.monotonic() + seconds, 0
    folder, attempts = (RunFolder(out), Attempts(out)) if world.rank == 0 else (None, None)
    for planned in plan:
        if planned.configuration.ranks != world.size:
            continue
        schedules = world.share(_to_do(planned, folder, attempts, world.backend))
        if world.share(time.monotonic() > end):
            break
        if not schedules:
            continue
        if attempts is not None:
            attempts.begin(planned)
        wrong += _measure(world, planned, schedules, folder, machine)
        if attempts is not None:
            attempts.end(planned)
    return int(world.share(wrong))


def _to_do(planned: Planned, folder: RunFolder | None, attempts: Attempts | None, backend: str) -> list[str]:
    """Schedules that are missing, on rank 0."""
    if folder is None or attempts is None:
        return []
    missing = planned.missing(folder.runs, backend)
    if missing and attempts.failed(planned):
        print(f"left out, as it ended the processes before: {planned.configuration.label}", flush=True)
        return []
    return missing


def _measure(
    world: World, planned: Planned, schedules: list[str], folder: RunFolder | None, machine: Mapping[str, Any]
) -> int:
    wrong, began = 0, time.monotonic()
    of_steps = isinstance(planned.configuration, StepConfiguration)
    kind = StepMeasurement if of_steps else Measurement
    measurement = kind(world, planned.configuration, planned.seed, machine)
    for run, timeline in measurement.run(schedules, planned.rounds):
        wrong += run.outcome == "wrong"
        if folder is not None:
            folder.add_with(run, timeline)
            took = f"{run.time_s * 1e3:.2f} ms" if run.outcome == "measured" else f"{run.outcome}: {run.detail}"
            print(f"{run.schedule}  {run.configuration.label}  {took}", flush=True)
    if folder is not None:
        print(f"  ({time.monotonic() - began:.1f} s)", flush=True)
    return wrong


if __name__ == "__main__":
    sys.exit(main())

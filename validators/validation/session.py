"""Runs that measure: torchrun started on a plan, and everything that validating a host of processes takes.

A host is calibrated first, on a grid of shapes; then configurations are drawn that the grid does not have, bounded by
what the fresh profile predicts, and measured. Both parts resume where they were.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from cost_models.processes import ProcessProfile, load_processes, save_processes
from simulator.recording import build_program, default_pass
from simulator.schedules import parse_schedule
from traces.errors import InputError
from traces.metrics import busy_ns, critical_rank
from validators.validation.draws import CPU, Forecast, Ranges, calibration_plan, draw_plan
from validators.validation.plan import write_plan
from validators.validation.process_fit import fit_host, predict
from validators.validation.runs import RUNS, Configuration, RunFolder

CALIBRATION, PROFILE = "calibration", "profile.json"
CALIBRATING = 0.4
STEADY_HEAP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 28)}
"""A C library that keeps what it was given: memory then comes from the process, as from PyTorch's allocator on a GPU,
and not page by page from the kernel in the middle of a timed call."""


def launch(plan: Path, out: Path, *, backend: str, ranks: int, seconds: float, threads: int = 1) -> int:
    """Measure a plan with one process per rank on this host; the exit code (1: a result was wrong).

    Raises
    ------
    InputError
        Where the processes failed.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m",
               "validators.validation.worker", "--backend", backend, "--plan", str(plan), "--out", str(out),
               "--seconds", str(seconds), "--threads", str(threads)]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(sys.path)}
    if backend == "gloo":
        environment |= STEADY_HEAP
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode not in (0, 1):
        raise InputError("the processes that measure failed", got=f"exit code {done.returncode}")
    return done.returncode


def validate_processes(
    folder: Path, *, ranks: int, draws: int, seed: int, rounds: int, seconds: float, ranges: Ranges = CPU
) -> ProcessProfile:
    """Calibrate this host for so many processes, draw, and measure; the profile that predicts the runs.

    Parameters
    ----------
    folder : of everything; what is in it is not done again.
    seconds : for all of it; at most ``CALIBRATING`` of them for the calibration.
    """
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder / f"calibration-{ranks}.json"
    write_plan(plan, calibration_plan(ranks, seed, 1))
    launch(plan, folder / CALIBRATION, backend="gloo", ranks=ranks, seconds=CALIBRATING * seconds)
    profile = fit_host(RunFolder(folder / CALIBRATION), folder.name, f"{folder.name}/{CALIBRATION}")
    save_processes(profile, folder / PROFILE)
    plan = folder / f"draws-{ranks}.json"
    if not plan.exists():
        write_plan(plan, draw_plan(ranges, ranks, draws, seed, rounds, forecast_on_host(profile)))
    launch(plan, folder / RUNS, backend="gloo", ranks=ranks, seconds=seconds - (time.monotonic() - began))
    return load_processes(folder / PROFILE)


def forecast_on_host(profile: ProcessProfile) -> Forecast:
    """Predictions that bound the draws on a host of processes, whose memory is no limit."""

    def forecast(configuration: Configuration, spec: str) -> tuple[float, float, bool]:
        schedule = parse_schedule(spec)
        timeline = predict(profile, build_program(schedule, configuration.setup, default_pass(schedule)))
        busy = busy_ns(timeline, critical_rank(timeline), "communication")
        return timeline.makespan_ns / 1e9, busy / max(timeline.makespan_ns, 1), True

    return forecast

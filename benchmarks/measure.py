"""Measure a case in a fresh process on one core.

A case prints one JSON object as the last line of its output: what it did, in counts and ``seconds`` of processor time,
which on a core of one's own is the time that passes, and is disturbed less where others run too. The parent adds wall
and processor time of the whole process. The best of several runs is kept: what disturbs a run only adds to it.
Modules are compiled once and kept, as where attnsim is installed, whatever this process was told to do about them.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

Measured = dict[str, Any]


def run_fresh(command: Sequence[str], repeats: int = 3, cores: int = 1) -> Measured:
    """Run a command a few times, each in a new process; the measurement of the quickest.

    Returns
    -------
    ``wall_s`` and ``cpu_s`` of the whole process, and what the command reported, by name.

    Raises
    ------
    RuntimeError
        Where the command fails.
    """
    runs = [_run_once(command, cores) for _ in range(repeats)]
    return min(runs, key=lambda run: float(run.get("seconds", run["cpu_s"])))


def python(module: str, *arguments: str) -> list[str]:
    """Command line of one of our modules under this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def _run_once(command: Sequence[str], cores: int) -> Measured:
    chosen = sorted(os.sched_getaffinity(0))[-cores:]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    begin, used = time.perf_counter(), _children_cpu_s()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, chosen),
    )  # fmt: skip
    output, errors = process.communicate()
    wall_s, cpu_s = time.perf_counter() - begin, _children_cpu_s() - used
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {errors[-2000:]}")
    return {"wall_s": wall_s, "cpu_s": cpu_s, **_report(output)}


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _report(output: str) -> Measured:
    last = output.strip().rpartition("\n")[2]
    return dict(json.loads(last)) if last.startswith("{") and last.endswith("}") else {}


def own_peak_rss_bytes() -> int:
    """Largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

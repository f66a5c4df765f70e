"""Simulate one schedule: record, price, run (`run`), and say what came out (`answer`)."""

from __future__ import annotations

from dataclasses import replace

from simulator.answer import result_of
from simulator.progress import Progress
from simulator.recorded import Recordings
from simulator.request import SimulationRequest
from simulator.resolved import ResolvedRequest
from simulator.result import SimulationResult
from simulator.run import Run
from simulator.schedules import SCHEDULES, Schedule, parse_schedule
from simulator.steps.largest import largest_seq_len
from traces.errors import InputError
from traces.garbage import collector_paused


def simulate(
    request: SimulationRequest,
    progress: Progress | None = None,
    *,
    stop_after_s: float | None = None,
    recordings: Recordings | None = None,
) -> SimulationResult:
    """Predict time, memory and traffic of one schedule.

    Parameters
    ----------
    stop_after_s : simulated time after which a first run without interference gives up.
    recordings : kept from other requests, and for further ones.

    Raises
    ------
    InputError
        Where the request cannot be simulated.
    Stopped
        Where it takes longer than ``stop_after_s``.
    """
    if request.seq_len == "max":
        request = replace(request, seq_len=largest_seq_len(request).seq_len)
    resolved = request.resolve()
    if resolved.schedule is None:
        raise InputError("no schedule is named", expected="one of " + ", ".join(SCHEDULES), remedy="name a schedule")
    return simulate_schedule(parse_schedule(resolved.schedule), resolved, progress, stop_after_s, recordings)


def simulate_schedule(
    schedule: Schedule,
    resolved: ResolvedRequest,
    progress: Progress | None = None,
    stop_after_s: float | None = None,
    recordings: Recordings | None = None,
) -> SimulationResult:
    """Simulate a schedule for a request that names none."""
    run = Run.prepare(schedule, resolved, progress, recordings)
    with collector_paused():
        run.follow()
        run.execute(stop_after_s)
    return result_of(run)

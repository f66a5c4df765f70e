"""Simulate every schedule that can answer a request, and rank them."""

from __future__ import annotations

from simulator.answer import result_of
from simulator.choices import list_choices
from simulator.progress import Progress
from simulator.recorded import Recordings
from simulator.request import SimulationRequest
from simulator.resolved import ResolvedRequest
from simulator.result import Comparison, Refused, SimulationResult
from simulator.run import Run
from simulator.schedules import Schedule, parse_schedule
from simulator.steps.record import setup_of
from traces.display import format_bytes
from traces.errors import InputError
from traces.garbage import collector_paused

PEER_CHOICES = (
    "torch-cp", "torch-cp:rotate=alltoall", "torch-cp:balance=false", "torch-cp:rotate=alltoall,balance=false",
    "ring-flash-attn", "ring-flash-attn:variant=zigzag", "ring-flash-attn:variant=stripe", "yunchang",
)  # fmt: skip
"""Other people's implementations, with the options that their users choose between."""


def compare(
    request: SimulationRequest, progress: Progress | None = None, *, recordings: Recordings | None = None
) -> Comparison:
    """Rank all schedules, with the variants of each that are worth comparing.

    Parameters
    ----------
    recordings : kept from other requests, and for further ones.

    Returns
    -------
    outcomes : exact schedules by time, approximate ones by time, then those refused, with the reason.

    Raises
    ------
    InputError
        Where the request itself is wrong.
    """
    if request.schedule is not None:
        raise InputError("compare simulates all schedules", got=f"schedule {request.schedule}", remedy="leave it out")
    resolved = request.resolve()
    results: list[SimulationResult] = []
    refused: list[Refused] = []
    chunked = resolved.request.chunked
    schedules = [choice.schedule for choice in list_choices(setup_of(resolved), chunked=chunked)]
    schedules += [parse_schedule(spec) for spec in PEER_CHOICES] if request.peers else []
    for done, schedule in enumerate(schedules):
        if progress is not None:
            progress(schedule.name, done, len(schedules))
        outcome = _try(schedule, resolved, recordings)
        if isinstance(outcome, SimulationResult):
            results.append(outcome)
        else:
            refused.append(outcome)
    results.sort(key=lambda result: (not result.exact, result.time_s))
    return Comparison([*results, *refused])


def _try(schedule: Schedule, resolved: ResolvedRequest, recordings: Recordings | None) -> SimulationResult | Refused:
    """Simulate what fits; the engine does not run for what is known not to."""
    try:
        with collector_paused():
            run = Run.prepare(schedule, resolved, None, recordings)
            run.follow()
            if not run.lacking_bytes:
                run.execute()
    except InputError as error:
        return Refused(str(schedule), error.message)
    if not run.lacking_bytes:
        return result_of(run)
    needs = format_bytes(run.profile.usable_memory_bytes + run.lacking_bytes)
    more = format_bytes(run.lacking_bytes)
    return Refused(str(run.schedule), f"out of memory: needs {needs}, {more} more than the GPU has")

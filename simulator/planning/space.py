"""Candidates: every legal combination of what a request leaves open, and why the others cannot run.

    attention, layer   schedule (mechanism, degrees, placement, partitioner)  x  kernel
    model              schedule for every grid tensor x context x data x pipeline, x ZeRO 1, 3 x checkpointing

A grid keeps tensor parallel ranks in a node, data parallel ranks to divisors of the batch and stages to divisors of the
layers, no more than there are microbatches. Of a model only the default kernel is tried, since the fastest is so in any
grid, and no ZeRO 0, which sends as much as ZeRO 1 and keeps more; an axis that the user lists is taken as listed.
Nothing is simulated here: a combination is legal if the schedule's own check says so, and a candidate that is not is
dropped with that check's reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from cost_models.hardware import HardwareProfile
from cost_models.kernels import choose_kernel
from simulator.choices import list_choices, make_choice
from simulator.layers.checkpoint import CHECKPOINTS
from simulator.request import SimulationRequest
from simulator.resolved import ResolvedRequest
from simulator.schedules import Schedule, parse_schedule
from simulator.steps.record import setup_of, subject_of
from traces.errors import InputError

Axes = Mapping[str, Sequence[Any]]
Options = dict[str, Any]

AXES = ("schedule", "kernel", "tp", "dp", "pp", "zero", "checkpoint", "dtype", "optimizer", "method", "placement")
"""Options that a plan may search, in the order in which a candidate names them."""


@dataclass(frozen=True)
class Candidate:
    """Options that a plan tries, and why they cannot run; None where they can."""

    options: Mapping[str, Any]
    reason: str | None = None

    def __str__(self) -> str:
        others = [f"{name}={value}" for name, value in self.options.items() if name != "schedule"]
        return " ".join([str(self.options["schedule"]), *others])


def list_candidates(
    base: SimulationRequest, axes: Axes | None = None, *, every: bool = False, approximate: bool = False
) -> list[Candidate]:
    """All candidates for a request that names no schedule.

    Parameters
    ----------
    base : the question.
    axes : values of options (of :data:`AXES`) to try instead of the usual ones.
    every : all degrees, placements and partitioners of the schedules instead of the sensible ones.
    approximate : approximate schedules too.

    Raises
    ------
    InputError
        Where the request itself is wrong, or an axis is unknown.
    """
    axes = dict(axes or {})
    unknown = next((name for name in axes if name not in AXES), None)
    if unknown is not None:
        raise InputError("a plan does not search this option", got=repr(unknown), expected="one of " + ", ".join(AXES))
    resolved = base.resolve()
    found: dict[str, Candidate] = {}
    for options in _settings(resolved, axes):
        for schedule, reason in _schedules(resolved, options, axes.get("schedule"), every):
            if not approximate and reason is None and not parse_schedule(schedule).exact:
                reason = "it is approximate"
            candidate = Candidate({"schedule": schedule, **options}, reason)
            found.setdefault(str(candidate), candidate)
    return list(found.values())


def _settings(resolved: ResolvedRequest, axes: Axes) -> Iterator[Options]:
    """Everything but the schedule."""
    request = resolved.request
    usual: dict[str, Sequence[Any]] = {"kernel": _kernels(resolved)}
    if request.layers == "model":
        usual["kernel"] = usual["kernel"][:1]
        usual |= _grid_axes(resolved)
        usual["checkpoint"] = CHECKPOINTS if request.pass_ in (None, "step") else (request.checkpoint,)
    names = [name for name in AXES if name != "schedule" and (name in usual or name in axes)]
    for values in product(*(axes.get(name, usual.get(name, ())) for name in names)):
        options = dict(zip(names, values, strict=True))
        ranks = options.get("tp", 1) * options.get("dp", 1) * options.get("pp", 1)
        if request.gpus % ranks == 0 and not (options.get("zero", 0) > 1 and request.gpus == 1):
            yield options


def _kernels(resolved: ResolvedRequest) -> Sequence[str]:
    """Kernels that can, the default one first."""
    request, workload = resolved.request, resolved.workload
    profile = resolved.profile
    first = choose_kernel(profile, request.kernel, workload)
    if request.kernel is not None:
        return [first]
    return [first, *[name for name in profile.kernels if name != first and _takes(profile, name, resolved)]]


def _takes(profile: HardwareProfile, kernel: str, resolved: ResolvedRequest) -> bool:
    try:
        return choose_kernel(profile, kernel, resolved.workload) == kernel
    except InputError:
        return False


def _grid_axes(resolved: ResolvedRequest) -> dict[str, Sequence[Any]]:
    request, model, topology = resolved.request, resolved.model, resolved.topology
    assert model is not None
    trains = request.pass_ in (None, "step")
    most_stages = 1 if model.tied_embeddings or not trains else request.microbatches
    fits_node = [n for n in _divisors(topology.ranks_per_node) if model.heads % n == 0 and model.kv_heads % n == 0]
    return {
        "tp": fits_node,
        "dp": [n for n in _divisors(request.batch) if topology.n_ranks % n == 0],
        "pp": [n for n in _divisors(model.layers) if topology.n_ranks % n == 0 and n <= most_stages],
        "zero": (1, 3) if trains else (0,),
    }


def _divisors(number: int) -> list[int]:
    """Of a number.

    >>> _divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    small = [n for n in range(1, int(number**0.5) + 1) if number % n == 0]
    return small + [number // n for n in reversed(small) if n * n != number]


def _schedules(
    resolved: ResolvedRequest, options: Options, listed: Sequence[Any] | None, every: bool
) -> Iterator[tuple[str, str | None]]:
    """(schedule, reason against it) for these options."""
    resolved = replace(resolved, request=replace(resolved.request, **options))
    try:
        setup = setup_of(resolved)
    except InputError as error:
        yield "any", error.message
        return
    pass_ = _pass_of(resolved.request)
    if listed is None:
        choices = list_choices(setup, pass_, every=every, chunked=resolved.request.chunked)
    else:
        choices = [make_choice(parse_schedule(str(name)), setup, pass_) for name in listed]
    for choice in choices:
        yield str(choice.schedule), choice.reason or _reason_against(choice.schedule, resolved)


def _reason_against(schedule: Schedule, resolved: ResolvedRequest) -> str | None:
    """Why the whole request cannot run with a schedule that could; None where it can."""
    try:
        subject_of(schedule, resolved)
    except InputError as error:
        return error.message
    return None


def _pass_of(request: SimulationRequest) -> str:
    """Pass of the attention; candidates are compared on the same one."""
    if request.pass_ in ("prefill", "decode"):
        return "forward"
    return request.pass_ if request.pass_ in ("forward", "backward") else "both"

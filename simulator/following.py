"""A deep step from one of few layers, exactly: what repeats is simulated once and repeated (`engines.periods`).

    layers   first those in which the GPU's clock still falls, then those that show the period, then the rest as copies

The few are simulated with what operations take from each other, as the whole would be. Rows, memory and traffic of the
whole are theirs with copies of the layers that repeat, so that whoever reads them cannot tell. A step that is not
periodic, or not deep enough to be worth it, is simulated whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

import numpy as np

from simulator.contended import ContendedCosts
from simulator.contention import most_classes
from simulator.engines.alike import Likeness
from simulator.engines.costs import Observer
from simulator.engines.periods import NotPeriodicError, Periods, Repeat, Unit, UnitProgram
from simulator.engines.stretch import Stretched
from simulator.fanout import Fanout
from simulator.program.operations import COMPUTE
from simulator.program.tape import Sink
from simulator.resolved import ResolvedRequest
from simulator.schedules import Schedule
from simulator.steps.record import Subject, subject_of
from simulator.worked import STEPS_S, on_middle_ns

SHOWING, MOST_SHOWING = 5, 10
"""Layers besides those in which the clock falls: the first, three that show the period, the last; some to settle."""

ATTEMPTS = 2
"""How often layers are added that seem to be missing."""

WORTH = 0.6
"""Share of the layers up to which few are fewer."""

MOST_RANKS = 4096
"""Ranks up to which the few layers' Program is kept."""

FOLLOWED = ("step", "prefill")


def is_deep(resolved: ResolvedRequest) -> bool:
    """Whether a request is for a step whose layers are many and alike, one after the other."""
    request, model = resolved.request, resolved.model
    if request.layers != "model" or model is None or request.pp != 1 or resolved.topology.n_ranks > MOST_RANKS:
        return False
    if request.pass_ not in (None, *FOLLOWED) or (model.moe is not None and model.moe.first_dense):
        return False
    answers = resolved.step_options.parsed_method.answers
    return answers == 1 and not resolved.step_options.chunked and WORTH * model.layers >= SHOWING


def follow_layers(
    schedule: Schedule, resolved: ResolvedRequest, costs: Callable[[], ContendedCosts], most: int
) -> Followed | None:
    """The whole step from few layers; None where it has to be simulated itself.

    Parameters
    ----------
    costs : makes prices, of GPUs that have not worked yet.
    most : classes of ranks up to which they are followed.
    """
    model = resolved.model
    if model is None or not is_deep(resolved) or schedule.asks_again:
        return None
    few = max(SHOWING, min(MOST_SHOWING, model.layers // 4))
    few += _layers_to_settle(_record(schedule, resolved, SHOWING)[1], costs())
    for _ in range(ATTEMPTS):
        if few > WORTH * model.layers:
            return None
        subject, program = _record(schedule, resolved, few)
        own = costs()
        program.replay(likeness := Likeness(subject.setup.n_ranks, own, most))
        alike = likeness.result()
        if alike is None or len(alike.first) > most_classes(likeness.operations):
            return None
        stretched, copies = Stretched(program, own, alike), model.layers - few
        try:
            return Followed(
                program, stretched, Periods(program, stretched.tasks, own.settled_at, copies).find(), copies
            )
        except NotPeriodicError as reason:
            if reason.missing is None:
                return None
            few += reason.missing
    return None


def _record(schedule: Schedule, resolved: ResolvedRequest, layers: int) -> tuple[Subject, UnitProgram]:
    assert resolved.model is not None
    subject = subject_of(schedule, replace(resolved, model=replace(resolved.model, layers=layers)))
    program = UnitProgram(subject.setup)
    subject.record(program)
    return subject, program


def _layers_to_settle(program: UnitProgram, costs: ContendedCosts) -> int:
    """Layers of the first pass in which prices still change with work done, beyond its first."""
    if costs.settled_at is not None:
        return 0
    unit = next(each for each in program.units if each.layer == SHOWING // 2 and each.operations)
    operations = program.operations[unit.operations.start : unit.operations.stop]
    layer_s = sum(on_middle_ns(costs.device_ns(each)) for each in operations if each.lane == COMPUTE) / 1e9
    return max(0, ceil(STEPS_S[-1] / max(layer_s, 1e-9)) - 1)


@dataclass(frozen=True)
class Followed:
    """A whole step, as copies of what few layers' did.

    Parameters
    ----------
    program : of few layers.
    stretched : its times.
    repeats : what has copies.
    copies : of each.
    """

    program: UnitProgram
    stretched: Stretched
    repeats: Sequence[Repeat]
    copies: int

    def replay(self, *sinks: Sink) -> None:
        """Pass on the whole step's events; numbers of operations and buffers are those of the layer copied."""
        fanout = Fanout(*sinks)
        at_once = frozenset().union(*[each.at_once for each in self.repeats])
        for unit, _ in self._units:
            for number in unit.events:
                verb, subject = self.program.events[number]
                times = 1 + self.copies * (verb == "release" and subject.id in at_once)
                for _ in range(times):
                    getattr(fanout, verb)(subject)
        fanout.finish(self.program.outputs)

    @cached_property
    def critical_rank(self) -> int:
        """The rank that finishes last; of several, the lowest."""
        ends = np.array([task.end_ns for task in self.stretched.tasks], dtype=np.int64)
        last = np.zeros(ends.shape[1], dtype=np.int64)
        for unit, later_ns in self._units:
            own = ends[unit.operations.start : unit.operations.stop]
            last = np.maximum(last, np.where(own >= 0, own + later_ns, 0).max(axis=0, initial=0))
        return int(np.argmax(self.stretched.spread(last)))

    def report(self, observer: Observer) -> None:
        """Tell of every operation when it ran."""
        tasks, spread = self.stretched.tasks, self.stretched.spread
        columns = [(task.operation, spread(task.start_ns), spread(task.end_ns)) for task in tasks]
        for unit, later_ns in self._units:
            for operation, start_ns, end_ns in columns[unit.operations.start : unit.operations.stop]:
                observer.observe(operation, start_ns + later_ns, end_ns + later_ns)

    @cached_property
    def _units(self) -> list[tuple[Unit, int]]:
        """Units of the whole step, and how much later than those of the few layers they are."""
        periods = {each.unit: each.period_ns for each in self.repeats}
        found, later_ns = [], 0
        for number, unit in enumerate(self.program.units):
            found.append((unit, later_ns))
            if number in periods:
                found += [(unit, later_ns + (copy + 1) * periods[number]) for copy in range(self.copies)]
                later_ns += self.copies * periods[number]
        return found

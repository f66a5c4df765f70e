"""Where a step is periodic in its layers: which unit of each section repeats, so that a deeper step follows exactly.

A step of n layers is units in sections (forward, backward, optimizer), a unit for each layer. What a deeper step has
more are copies of one layer r of each section, each T later than the one before, if

    events      of r - 1, r and r + 1 are alike: allocations, releases, operations, prices, whom operations wait for
    times       of r are those of r - 1, and of r + 1 those of r, T later: one T for all ranks, lanes and operations
    waiting     what is further behind what it waits for by the copies did not start at the end of that
    host        issues nothing of the deeper step when it starts; or it sets the pace, the same in all sections
    prices      no longer change with how long GPUs have worked
    memory      of the layers is given back in as many units, or all at once outside of them

Times depend on what came before alone, and only on differences. So the state in which r + 1 finds the ranks, its
surroundings shifted by T, is that in which r found them, and a copy behind r finds it again: what follows is the same,
shifted. Whatever else reaches across the copies gets further away, and was not waited for already when it was nearer.
Anything else is refused (`NotPeriodicError`), and the deeper step simulated itself: above all where ranks run ahead of
each other by more in each layer, which what they take from each other slows only by and by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log

import numpy as np

from simulator.engines.planner import Task
from simulator.engines.rows import sent_bytes
from simulator.program.operations import HOST, Buffer, Column, IntArray, Operation
from simulator.program.program import Program
from simulator.program.setup import Ranks, Setup
from simulator.program.units import Unitwise

NEAR = 2
"""Units behind its own that an operation of a layer may wait for anew in each."""


class NotPeriodicError(Exception):
    """A step's layers do not repeat exactly.

    Attributes
    ----------
    missing : so many more layers, and they may; None where that does not help.
    """

    def __init__(self, why: str, missing: int | None = None) -> None:
        super().__init__(why)
        self.missing = missing


@dataclass(frozen=True)
class Unit:
    """Operations and events of a unit; its layer, where it is one."""

    section: str
    layer: int | None
    operations: range
    events: range


class UnitProgram(Program, Unitwise):
    """A Program that keeps where its units begin."""

    def __init__(self, setup: Setup | Ranks) -> None:
        super().__init__(setup)
        self._count = 0
        self._begun: list[tuple[str, int | None, int, int]] = [("", None, 0, 0)]

    def operation(self, operation: Operation) -> None:
        """Keep the event."""
        super().operation(operation)
        self._count += 1

    def unit(self, section: str, layer: int | None) -> None:
        """Keep where it begins."""
        self._begun.append((section, layer, self._count, len(self.events)))

    @property
    def units(self) -> list[Unit]:
        """All units, in order."""
        ends = [*self._begun[1:], ("", None, self._count, len(self.events))]
        return [
            Unit(section, layer, range(first, end[2]), range(event, end[3]))
            for (section, layer, first, event), end in zip(self._begun, ends, strict=True)
        ]


@dataclass(frozen=True)
class Repeat:
    """A unit by its number, and how much later its copies are, each than the one before.

    Attributes
    ----------
    at_once : buffers of it that are given back together with those of all other layers.
    """

    unit: int
    period_ns: int
    at_once: frozenset[int] = frozenset()


class Periods:
    """Looks for repeats.

    Parameters
    ----------
    program : a step, recorded.
    tasks : its operations, as they ran.
    settled : number of the operation from which on prices do not change with work done; None where they still do.
    copies : layers that the deeper step has more.
    """

    def __init__(self, program: UnitProgram, tasks: Sequence[Task], settled: int | None, copies: int) -> None:
        self._program, self._tasks, self._settled, self._copies = program, tasks, settled, copies
        self._units = program.units
        self._unit_of = np.concatenate([np.full(len(each.operations), n) for n, each in enumerate(self._units)])
        columns = [(task.ready_ns, task.start_ns, task.end_ns) for task in tasks]
        self._times = np.array(columns, dtype=np.int64).transpose(1, 0, 2)
        self._issued = np.array([task.issued_ns for task in tasks], dtype=np.int64)
        self._alone = np.array([task.device_ns for task in tasks], dtype=np.int64)
        self._released = _released(program, self._units)
        self._host_ns: dict[int, IntArray] = {}

    def find(self) -> list[Repeat]:
        """A repeat for each section that has layers.

        Raises
        ------
        NotPeriodicError
            With the reason.
        """
        if any(task.after is not None or task.operation.lane == HOST for task in self._tasks):
            raise NotPeriodicError("the host waits")
        repeats = [self._repeat(layers) for layers in self._sections()]
        working = [each for each in repeats if len(self._units[each.unit].operations)]
        if not working:
            raise NotPeriodicError("nothing repeats")
        crossed = np.array([self._units[each.unit - 1].operations.start for each in working])
        if self._settled is None or self._settled > crossed[0]:
            raise NotPeriodicError("prices change with work done", 1)
        self._check_host(repeats, int(crossed[0]))
        self._check_waiting(crossed)
        return repeats

    def _sections(self) -> Iterator[list[int]]:
        """Numbers of the units of each section's layers."""
        layers = [number for number, unit in enumerate(self._units) if unit.layer is not None]
        names = dict.fromkeys(self._units[number].section for number in layers)
        for name in names:
            own = [number for number in layers if self._units[number].section == name]
            if own != list(range(own[0], own[0] + len(own))) or len(own) < NEAR + 1:
                raise NotPeriodicError(f"{name} is not of layers one after the other")
            yield own

    def _repeat(self, layers: Sequence[int]) -> Repeat:
        reasons: list[NotPeriodicError] = []
        for unit in layers[-2:0:-1]:
            try:
                return self._check_repeat(unit)
            except NotPeriodicError as reason:
                reasons.append(reason)
        first = next((each for each in reasons if each.missing), reasons[0])
        raise NotPeriodicError(f"{self._units[layers[0]].section}: {first}", first.missing)

    def _check_repeat(self, unit: int) -> Repeat:
        around = [self._units[number] for number in (unit - 1, unit, unit + 1)]
        first, *others = [self._signature(each) for each in around]
        if any(each != first for each in others):
            raise NotPeriodicError("layers are unlike")
        at_once = self._given_back_at_once(around)
        self._check_structure(around[1], around[2])
        before, after = (self._later(a, b) for a, b in zip(around, around[1:], strict=False))
        period_ns = int(after.max(initial=0))
        if (before != period_ns).any() or (after != period_ns).any():
            raise NotPeriodicError("times do not repeat", _missing(before, after))
        self._note_host(unit, around)
        return Repeat(unit, period_ns, at_once)

    # -- what is recorded --------------------------------------------------------------------------------------------

    def _signature(self, unit: Unit) -> list[tuple[object, ...]]:
        return [_event(*self._program.events[number]) for number in unit.events]

    def _given_back_at_once(self, around: Sequence[Unit]) -> frozenset[int]:
        """Of the middle unit; all else of these is given back each in another unit, or never."""
        at_once = []
        for own, places in zip(
            self._allocated(around[1]), zip(*map(self._given_back, around), strict=True), strict=True
        ):
            kept = [place for place in places if place is not None]
            steps = {b - a for a, b in zip(kept, kept[1:], strict=False)}
            if kept and (len(kept) < len(places) or steps not in ({1}, {-1}, {0})):
                raise NotPeriodicError("memory is given back unevenly")
            if steps == {0} and self._units[kept[0]].layer is not None:
                raise NotPeriodicError("a layer gives back memory of several")
            at_once += [own] if steps == {0} else []
        return frozenset(at_once)

    def _allocated(self, unit: Unit) -> list[int]:
        events = [self._program.events[number] for number in unit.events]
        return [subject.id for verb, subject in events if verb == "allocate"]

    def _given_back(self, unit: Unit) -> list[int | None]:
        return [self._released.get(buffer) for buffer in self._allocated(unit)]

    def _check_structure(self, one: Unit, other: Unit) -> None:
        """Operations wait for the same, a unit later, where that is near."""
        later = len(one.operations)
        for number in one.operations:
            waits, others = dict(self._tasks[number].waits), dict(self._tasks[number + later].waits)
            if waits.keys() != others.keys():
                raise NotPeriodicError("operations wait for other lanes")
            for lane, numbers in waits.items():
                before, after = np.array(numbers), np.array(others[lane])
                near = (after >= 0) & (self._unit_of[number + later] - self._unit_of[after] <= NEAR)
                if (after[near] != before[near] + later).any():
                    raise NotPeriodicError("operations wait for others")

    # -- times -------------------------------------------------------------------------------------------------------

    def _later(self, one: Unit, other: Unit) -> IntArray:
        """How much later everything is."""
        a, b = (slice(unit.operations.start, unit.operations.stop) for unit in (one, other))
        before, after = self._times[:, a], self._times[:, b]
        here = before >= 0
        if (here != (after >= 0)).any() or (self._alone[a] != self._alone[b]).any():
            raise NotPeriodicError("operations are not priced alike", 1)
        return np.asarray((after - before)[here])

    def _note_host(self, number: int, around: Sequence[Unit]) -> None:
        """How much later the hosts are."""
        parts = [self._issued[unit.operations.start : unit.operations.stop] for unit in around]
        later = np.stack([parts[1] - parts[0], parts[2] - parts[1]]).reshape(-1, self._issued.shape[1])
        if (later != later[:1]).any():
            raise NotPeriodicError("the host has no pace")
        self._host_ns[number] = later[0] if len(later) else np.zeros_like(self._issued[0])

    def _check_host(self, repeats: Sequence[Repeat], first: int) -> None:
        """What follows is not set by the host, unless all is."""
        period_of = {each.unit: each.period_ns for each in repeats}
        if all((self._host_ns[each] == period).all() for each, period in period_of.items()):
            return
        spare = np.where(self._times[0] >= 0, self._times[0] - self._issued, np.iinfo(np.int64).max // 2)
        gained = np.zeros_like(self._issued[0])
        for number, unit in enumerate(self._units):
            own = spare[max(unit.operations.start, first) : unit.operations.stop].min(axis=0, initial=2**62)
            least = [own, own + gained]
            if number in period_of:
                gained = gained + self._copies * (period_of[number] - self._host_ns[number])
                least.append(own + gained)
            if (np.array(least) <= 0).any():
                raise NotPeriodicError("the host is waited for")

    def _check_waiting(self, crossed: IntArray) -> None:
        """Nothing starts at the end of what it will be further behind."""
        ready, _, end = self._times
        behind = np.searchsorted(crossed, np.arange(len(self._tasks)), side="right")
        rank = np.arange(ready.shape[1])
        last: dict[str, IntArray] = {}
        for number, task in enumerate(self._tasks):
            here = ready[number] >= 0
            lane = task.operation.lane
            for numbers in (*[np.array(each) for _, each in task.waits], last.get(lane, np.full(len(rank), -1))):
                far = here & (numbers >= 0) & (behind[number] > behind[numbers])
                far &= self._unit_of[number] - self._unit_of[numbers] > NEAR
                if (end[numbers, rank] >= ready[number])[far].any():
                    raise NotPeriodicError(f"{task.operation.kind} waits for what is left behind")
            last[lane] = np.where(here, number, last.get(lane, -1))


def _missing(before: IntArray, after: IntArray) -> int | None:
    """Layers until differences of pace, which become less in proportion, are gone; None where they do not."""
    period_ns = after.max(initial=0)
    gap, less = (float(abs(each - period_ns).max(initial=0)) for each in (before, after))
    if less >= gap:
        return None
    return 1 if less < 1 else ceil(log(2 * less) / log(gap / less)) + 2


def _released(program: UnitProgram, units: Sequence[Unit]) -> dict[int, int]:
    """Unit in which each buffer is given back."""
    return {
        program.events[event][1].id: number
        for number, unit in enumerate(units)
        for event in unit.events
        if program.events[event][0] == "release"
    }


def _event(verb: str, subject: Buffer | Operation) -> tuple[object, ...]:
    if isinstance(subject, Buffer):
        return verb, _key(subject.bytes), subject.on_host
    return verb, subject.kind, subject.lane, subject.phase, _key(sent_bytes(subject))


def _key(column: Column) -> object:
    return column if isinstance(column, int) else column.tobytes()

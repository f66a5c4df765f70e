"""The discrete-event engine, on SimPy: the reference, one process per (rank, lane).

A lane's process takes its operations in order. Whatever an operation waits for is some other lane of the same rank
having finished some operation, so each lane publishes how far it is, and an event is made only where somebody must wait
for it. The host issues without ever waiting for the device: its times are running sums, known before the run.

An exchange holds its lane from its own start. Its data moves once both ends have started, and it ends when what it
sends and what it receives have both arrived; a collective ends one duration after the last of its group has started.
Times are integer nanoseconds. Without sharing the result equals `maxplus`, row by row.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np
import simpy

from simulator.engines.costs import Costs, Observer
from simulator.program.operations import COMPUTE, Collective, Column, Exchange, Operation
from simulator.program.program import Program

Wait = Generator[simpy.Event, None, None]


class _Flag:
    """Something that happens once; an event exists only if somebody waits."""

    __slots__ = ("event", "happened")

    def __init__(self) -> None:
        self.happened = False
        self.event: simpy.Event | None = None

    def wait(self, env: simpy.Environment) -> simpy.Event:
        """An event for it."""
        if self.event is None:
            self.event = simpy.Event(env)
        return self.event

    def set(self) -> None:
        """It has happened."""
        self.happened = True
        if self.event is not None:
            self.event.succeed()


class _Progress:
    """How far a lane of one rank is: the number of the last operation it has finished."""

    __slots__ = ("done", "waiting")

    def __init__(self) -> None:
        self.done = -1
        self.waiting: list[tuple[int, simpy.Event]] = []

    def wait(self, env: simpy.Environment, number: int) -> simpy.Event:
        """An event for operation ``number`` being finished."""
        event = simpy.Event(env)
        self.waiting.append((number, event))
        return event

    def advance(self, number: int) -> None:
        """Operation ``number`` is finished."""
        self.done = number
        if self.waiting:
            still: list[tuple[int, simpy.Event]] = []
            for wanted, event in self.waiting:
                if wanted <= number:
                    event.succeed()
                else:
                    still.append((wanted, event))
            self.waiting = still


@dataclass(slots=True)
class _Task:
    """An operation with its prices, what it waits for, and where its ranks meet."""

    operation: Operation
    issued_ns: list[int]
    device_ns: list[int]
    waits: list[tuple[str, list[int]]]
    start_ns: list[int]
    end_ns: list[int]
    started: list[_Flag] = field(default_factory=list)
    arrived: list[_Flag] = field(default_factory=list)
    missing: dict[int, int] = field(default_factory=dict)
    to: list[int] = field(default_factory=list)
    source: list[int] = field(default_factory=list)
    group: list[int] = field(default_factory=list)


class DiscreteEvents:
    """One run of a Program.

    Parameters
    ----------
    program : what runs.
    costs : prices of operations.
    observer : is told of every operation afterwards, in issue order.
    """

    def __init__(self, program: Program, costs: Costs, observer: Observer | None = None) -> None:
        self._n_ranks = program.setup.n_ranks
        self._tasks = _Planner(self._n_ranks, costs).plan(program)
        self._env = simpy.Environment(initial_time=0)
        self._progress: dict[str, list[_Progress]] = {}
        self._observer = observer

    def run(self) -> int:
        """Run to the end; returns the makespan in nanoseconds.

        Raises
        ------
        RuntimeError
            Where operations wait for each other in a circle.
        """
        by_lane: dict[str, list[_Task]] = {COMPUTE: []}
        for task in self._tasks:
            by_lane.setdefault(task.operation.lane, []).append(task)
        self._progress = {lane: [_Progress() for _ in range(self._n_ranks)] for lane in by_lane}
        processes = [
            self._env.process(self._lane(rank, tasks, self._progress[lane][rank]))
            for lane, tasks in by_lane.items()
            for rank in range(self._n_ranks)
        ]
        self._env.run()
        if any(process.is_alive for process in processes):
            raise RuntimeError("operations wait for each other in a circle")
        self._report()
        return max((max(task.end_ns) for task in self._tasks), default=0)

    def _report(self) -> None:
        if self._observer is not None:
            for task in self._tasks:
                self._observer.observe(task.operation, np.array(task.start_ns), np.array(task.end_ns))

    def _lane(self, rank: int, tasks: list[_Task], progress: _Progress) -> Wait:
        env = self._env
        lanes = {lane: each[rank] for lane, each in self._progress.items()}
        for task in tasks:
            ranks = task.operation.ranks
            if ranks is not None and not ranks[rank]:
                continue
            for lane, numbers in task.waits:
                if lanes[lane].done < numbers[rank]:
                    yield lanes[lane].wait(env, numbers[rank])
            if task.issued_ns[rank] > env.now:
                yield env.timeout(task.issued_ns[rank] - env.now)
            task.start_ns[rank] = int(env.now)
            if task.to:
                yield from self._exchange(rank, task)
            elif task.group:
                yield from self._collective(rank, task)
            elif task.device_ns[rank]:
                yield env.timeout(task.device_ns[rank])
            task.end_ns[rank] = int(env.now)
            progress.advance(task.operation.id)

    def _exchange(self, rank: int, task: _Task) -> Wait:
        task.started[rank].set()
        receiver = task.started[task.to[rank]]
        if not receiver.happened:
            yield receiver.wait(self._env)
        yield self._env.timeout(task.device_ns[rank])
        task.arrived[rank].set()
        sender = task.arrived[task.source[rank]]
        if not sender.happened:
            yield sender.wait(self._env)

    def _collective(self, rank: int, task: _Task) -> Wait:
        group = task.group[rank]
        task.missing[group] -= 1
        if task.missing[group]:
            yield task.arrived[group].wait(self._env)
        else:
            yield self._env.timeout(task.device_ns[rank])
            task.arrived[group].set()


class _Planner:
    """Turns a Program into tasks; the rules of waiting, in terms of lanes and operations."""

    def __init__(self, n_ranks: int, costs: Costs) -> None:
        self._n_ranks, self._costs = n_ranks, costs
        self._issued = np.zeros(n_ranks, dtype=np.int64)
        self._last_compute = [-1] * n_ranks
        self._written: dict[int, tuple[str, list[int]]] = {}
        self._read: dict[int, dict[str, list[int]]] = {}

    def plan(self, program: Program) -> list[_Task]:
        """A task for each operation, in issue order."""
        return [self._task(operation) for operation in program.operations]

    def _task(self, operation: Operation) -> _Task:
        issued = self._issued + self._costs.host_ns(operation)
        self._issued = issued if operation.ranks is None else np.where(operation.ranks, issued, self._issued)
        waits = self._waits(operation)
        device = self._per_rank(self._costs.device_ns(operation))
        zero = [0] * self._n_ranks
        task = _Task(operation, self._issued.tolist(), device, waits, zero, list(zero))
        work = operation.work
        if isinstance(work, Exchange):
            task.to, task.source = work.ring.to.tolist(), work.ring.source.tolist()
            task.started, task.arrived = self._flags(), self._flags()
        elif isinstance(work, Collective):
            task.group = list(zero) if work.groups is None else work.groups.tolist()
            task.arrived = self._flags()
            task.missing = {group: task.group.count(group) for group in set(task.group)}
        return task

    def _flags(self) -> list[_Flag]:
        return [_Flag() for _ in range(self._n_ranks)]

    def _per_rank(self, column: Column) -> list[int]:
        per_rank: list[int] = np.broadcast_to(np.asarray(column), self._n_ranks).tolist()
        return per_rank

    def _waits(self, operation: Operation) -> list[tuple[str, list[int]]]:
        lane, waits = operation.lane, []
        numbers = self._numbers(operation)
        if lane == COMPUTE:
            self._last_compute = [max(pair) for pair in zip(numbers, self._last_compute, strict=True)]
        else:
            waits = [(COMPUTE, self._last_compute)]
        for buffer in (*operation.reads, *operation.writes):
            if buffer.id in self._written:
                waits.append(self._written[buffer.id])
        for buffer in operation.writes:
            waits += self._read.get(buffer.id, {}).items()
        if lane != COMPUTE:
            for buffer in operation.reads:
                self._read.setdefault(buffer.id, {})[lane] = numbers
            for buffer in operation.writes:
                self._written[buffer.id] = lane, numbers
        return [wait for wait in waits if wait[0] != lane]

    def _numbers(self, operation: Operation) -> list[int]:
        """The operation's number on each rank that takes part, elsewhere one that nobody waits for."""
        if operation.ranks is None:
            return [operation.id] * self._n_ranks
        numbers: list[int] = np.where(operation.ranks, operation.id, -1).tolist()
        return numbers

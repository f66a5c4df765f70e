"""The discrete-event engine, on SimPy: the reference, one process per (rank, lane).

A lane's process takes its operations in order. Whatever an operation waits for is some other lane of the same rank
having finished some operation, so each lane publishes how far it is, and an event is made only where somebody must wait
for it. The host issues without ever waiting for the device: its times are running sums, known before the run.

An exchange holds its lane from its own start. Its data moves once both ends have started, and it ends when what it
sends and what it receives have both arrived; a collective ends one duration after the last of its group has started.
Where transfers share links (`sharing`), a network of flows (`fluid`) says when they arrive: it is asked once per
instant, after everything else that happens then. Where kernels and communication interfere (`interference`), kernels
are flows too, and `devices` says how fast each may go. Times are integer nanoseconds. Without sharing and interference
the result equals `maxplus`, row by row.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import simpy
from simpy.events import EventPriority

from simulator.engines.costs import Costs, Observer
from simulator.engines.devices import Devices, Kernel
from simulator.engines.flows import Ask, Flow
from simulator.engines.fluid import Network
from simulator.engines.interference import SharedCosts
from simulator.engines.planner import Planner, Task
from simulator.engines.saturation import Saturation
from simulator.engines.sharing import Sharing
from simulator.engines.stalls import StalledError, find_stalls
from simulator.program.operations import COMPUTE
from simulator.program.program import Program

Wait = Generator[simpy.Event, None, None]

AFTER_ALL_ELSE = EventPriority(2)
"""Priority of an event at the end of an instant; SimPy's own are 0 and 1."""


@contextmanager
def _without_collector() -> Iterator[None]:
    """Events are many and short-lived, and looking through them for cycles takes a quarter of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


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


class _Late(simpy.Event):
    """An event at the end of the present instant."""

    def __init__(self, env: simpy.Environment) -> None:
        super().__init__(env)
        self._ok, self._value = True, None
        env.schedule(self, priority=AFTER_ALL_ELSE)


class Links:
    """The network of flows, driven by the clock: settled at the end of an instant, woken when data arrive."""

    def __init__(self, env: simpy.Environment, capacities: list[float]) -> None:
        self._env, self.network = env, Network(capacities)
        self._will_settle = False
        self._wakes: set[int] = set()

    def send(self, ask: Ask, left: Callable[[Flow], object] | None = None) -> tuple[Flow, simpy.Event]:
        """A flow begins; with an event for its arrival."""
        arrived = simpy.Event(self._env)
        flow = self.network.start(ask, int(self._env.now), arrived.succeed, left)
        self.settle_later()
        return flow, arrived

    def settle_later(self) -> None:
        """Rates are to be found anew at the end of this instant."""
        if not self._will_settle:
            self._will_settle = True
            _Late(self._env).callbacks.append(self._settle)

    def _settle(self, _: simpy.Event) -> None:
        self._will_settle = False
        self.network.settle(int(self._env.now))
        self._set_alarm()

    def _set_alarm(self) -> None:
        next_ns = self.network.next_ns
        if next_ns is not None and next_ns not in self._wakes:
            self._wakes.add(next_ns)
            self._env.timeout(next_ns - int(self._env.now)).callbacks.append(self._wake)

    def _wake(self, _: simpy.Event) -> None:
        now = int(self._env.now)
        self._wakes.discard(now)
        if self.network.finish(now):
            self.settle_later()
        else:
            self._set_alarm()


class DiscreteEvents:
    """One run of a Program.

    Parameters
    ----------
    program : what runs.
    costs : prices of operations.
    observer : is told of every operation afterwards, in issue order.
    sharing : transfers that share links; None where nothing is shared.
    shared : what operations take from others on their GPU; None where they do not interfere.
    lost : a rank that begins nothing any more, and from which nanosecond on.
    """

    def __init__(
        self,
        program: Program,
        costs: Costs,
        observer: Observer | None = None,
        sharing: Sharing | None = None,
        shared: SharedCosts | None = None,
        lost: tuple[int, int] | None = None,
    ) -> None:
        self._n_ranks = program.setup.n_ranks
        self._tasks = Planner(self._n_ranks, costs, sharing, shared).plan(program)
        self._env = simpy.Environment(initial_time=0)
        self._links = Links(self._env, list(sharing.capacities) if sharing else [])
        self._devices = Devices(self._n_ranks, self._links.network, shared.memory_bytes_per_s) if shared else None
        self._progress: dict[str, list[_Progress]] = {}
        self._started: dict[int, list[_Flag]] = {}
        self._arrived: dict[int, list[_Flag]] = {}
        self._observer, self._lost = observer, lost

    @property
    def saturation(self) -> Saturation:
        """Links that were full, for how long, and whom that slowed."""
        return self._links.network.saturation

    def run(self) -> int:
        """Run to the end; returns the makespan in nanoseconds.

        Raises
        ------
        StalledError
            Where operations wait for each other in a circle, or for a lost rank.
        """
        by_lane: dict[str, list[Task]] = {COMPUTE: []}
        for task in self._tasks:
            by_lane.setdefault(task.operation.lane, []).append(task)
            if task.to:
                self._started[task.operation.id] = self._flags()
            if task.to or task.group:
                self._arrived[task.operation.id] = self._flags()
        self._progress = {lane: [_Progress() for _ in range(self._n_ranks)] for lane in by_lane}
        processes = [
            self._env.process(self._lane(rank, tasks, self._progress[lane][rank]))
            for lane, tasks in by_lane.items()
            for rank in range(self._n_ranks)
        ]
        with _without_collector():
            self._env.run()
        if any(process.is_alive for process in processes):
            raise StalledError(find_stalls(self._tasks))
        self._report()
        return max((max(0, *task.end_ns) for task in self._tasks), default=0)

    def _flags(self) -> list[_Flag]:
        return [_Flag() for _ in range(self._n_ranks)]

    def _report(self) -> None:
        if self._observer is not None:
            for task in self._tasks:
                self._observer.observe(task.operation, np.array(task.start_ns), np.array(task.end_ns))

    def _lane(self, rank: int, tasks: list[Task], progress: _Progress) -> Wait:
        env, interfere = self._env, self._devices is not None
        lanes = {lane: each[rank] for lane, each in self._progress.items()}
        for task in tasks:
            ranks = task.operation.ranks
            if ranks is not None and not ranks[rank]:
                continue
            if self._lost is not None and rank == self._lost[0] and env.now >= self._lost[1]:
                return
            for lane, numbers in task.waits:
                if lanes[lane].done < numbers[rank]:
                    yield lanes[lane].wait(env, numbers[rank])
            if task.issued_ns[rank] > env.now:
                yield env.timeout(task.issued_ns[rank] - env.now)
            task.start_ns[rank] = int(env.now)
            if task.to or task.group:
                if interfere:
                    self._hold(rank, task, 1)
                yield from self._exchange(rank, task) if task.to else self._collective(rank, task)
                if interfere:
                    self._hold(rank, task, -1)
            elif task.device_ns[rank]:
                yield self._kernel(rank, task) if interfere else env.timeout(task.device_ns[rank])
            task.end_ns[rank] = int(env.now)
            progress.advance(task.operation.id)

    def _hold(self, rank: int, task: Task, sign: int) -> None:
        """Communication takes its multiprocessors, or gives them back."""
        assert self._devices is not None and task.use is not None
        self._devices.take(rank, sign * task.use.sms[rank])
        self._links.settle_later()

    def _kernel(self, rank: int, task: Task) -> simpy.Event:
        """A kernel that others on its GPU may slow."""
        use, devices = task.use, self._devices
        assert use is not None and devices is not None
        ask = Ask(task.device_ns[rank], 0, 1.0, ())
        flow, ended = self._links.send(ask, lambda _: devices.end_kernel(rank))
        devices.start_kernel(rank, Kernel(flow, use.traffic[rank], lambda taken: use.slowdown(taken)[rank]))
        return ended

    def _move(self, rank: int, task: Task, ask: Ask | None, ranks: Sequence[int]) -> simpy.Event:
        """The data of a rank, or of its group, begin to move."""
        use, devices = task.use, self._devices
        if use is None or devices is None or not task.device_ns[rank]:
            return self._env.timeout(task.device_ns[rank]) if ask is None else self._links.send(ask)[1]
        flow, arrived = self._links.send(ask or Ask(task.device_ns[rank], 0, 1.0, ()), devices.rest)
        busy = [rank] if task.to else ranks  # what a rank receives is counted with what it sends
        devices.move(flow, [(each, use.traffic[each] if each in busy else 0.0) for each in ranks])
        return arrived

    def _exchange(self, rank: int, task: Task) -> Wait:
        started, arrived = self._started[task.operation.id], self._arrived[task.operation.id]
        started[rank].set()
        receiver = started[task.to[rank]]
        if not receiver.happened:
            yield receiver.wait(self._env)
        if task.asks or task.use is not None:
            yield self._move(rank, task, task.asks[rank] if task.asks else None, tuple({rank, task.to[rank]}))
        else:
            yield self._env.timeout(task.device_ns[rank])
        arrived[rank].set()
        sender = arrived[task.source[rank]]
        if not sender.happened:
            yield sender.wait(self._env)

    def _collective(self, rank: int, task: Task) -> Wait:
        group, met = task.group[rank], self._arrived[task.operation.id]
        ask = task.asks[group] if task.asks else None
        task.missing[group] -= 1
        if task.missing[group]:
            yield met[group].wait(self._env)
        else:
            if ask is not None:
                yield self._move(rank, task, ask, self._members(task, group))
            met[group].set()
        if ask is None and task.device_ns[rank]:
            yield self._move(rank, task, None, (rank,))

    def _members(self, task: Task, group: int) -> list[int]:
        ranks = task.operation.ranks
        return [each for each, of in enumerate(task.group) if of == group and (ranks is None or ranks[each])]

"""The discrete-event engine, on SimPy: the reference, one process per (rank, lane).

A lane's process takes its operations in order. Whatever an operation waits for is some other lane of the same rank
having finished some operation, so each lane publishes how far it is, and an event is made only where somebody must wait
for it. The host's times are running sums, known before the run, from its last wait for the device on.

An exchange holds its lane from its own start. Its data moves once both ends have started, and it ends when what it
sends and what it receives have both arrived; a collective ends one duration after the last of its group has started, an
all-to-all of uneven parts on each rank with the last that it sends or receives.
Where transfers share links (`sharing`), a network of flows (`fluid`) says when they arrive; where kernels and
communication interfere (`interference`), `devices` says how fast each may go, and when communication gets its SMs. Both
are asked once per instant, after everything else that happens then. What happens at a time depends on what came before
alone, so there is one answer and nothing to converge, however long the Program. Of ranks that are alike (`alike`) one
is followed. Times are integer nanoseconds. Without sharing and interference the result equals `maxplus`, row by row.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

import simpy
from simpy.events import EventPriority

from simulator.engines.alike import Alike
from simulator.engines.costs import Costs, Observer
from simulator.engines.devices import Devices, Moving, SharedMoving, Work
from simulator.engines.flows import Ask, Flow
from simulator.engines.fluid import Network
from simulator.engines.interference import SharedCosts
from simulator.engines.planner import Planner, Task
from simulator.engines.saturation import Saturation
from simulator.engines.sharing import Sharing
from simulator.engines.stalls import StalledError, find_stalls
from simulator.program.operations import COMPUTE, HOST, Collective
from simulator.program.program import Replayed

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


class _Due(simpy.Event):
    """An event at a time that may change."""

    def __init__(self, env: simpy.Environment, at_ns: int) -> None:
        super().__init__(env)
        self._ok, self._value = True, None
        env.schedule(self, delay=at_ns - int(env.now))

    def moved(self, at_ns: int) -> _Due:
        """The same at another time; who waits for this one waits for that."""
        other = _Due(self.env, at_ns)
        other.callbacks, self.callbacks = self.callbacks, []
        return other


class Links:
    """The network of flows, driven by the clock: settled at the end of an instant, woken when data arrive.

    Attributes
    ----------
    devices : GPUs that may slow flows, settled before them.
    """

    def __init__(self, env: simpy.Environment, capacities: list[float]) -> None:
        self._env, self.network = env, Network(capacities)
        self.devices: Devices | None = None
        self._will_settle = False
        self._wakes: set[int] = set()

    def send(self, ask: Ask, left: Callable[[Flow], object] | None = None) -> tuple[Flow, simpy.Event]:
        """A flow begins; with an event for its arrival."""
        arrived = simpy.Event(self._env)
        flow = self.network.start(ask, int(self._env.now), arrived.succeed, left)
        self.settle_later()
        return flow, arrived

    @property
    def now_ns(self) -> int:
        """The time."""
        return int(self._env.now)

    def at(self, time_ns: int) -> _Due:
        """An event then."""
        return _Due(self._env, time_ns)

    def settle_later(self) -> None:
        """Rates and speeds are to be found anew at the end of this instant."""
        if not self._will_settle:
            self._will_settle = True
            _Late(self._env).callbacks.append(self._settle)

    def _settle(self, _: simpy.Event) -> None:
        if self.devices is not None:
            self.devices.settle()
        self._will_settle = False
        if not self.network.is_idle:
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
    alike : ranks that are alike; None where each is followed by itself, as shared links and a lost rank demand.
    """

    def __init__(
        self,
        program: Replayed,
        costs: Costs,
        observer: Observer | None = None,
        sharing: Sharing | None = None,
        shared: SharedCosts | None = None,
        lost: tuple[int, int] | None = None,
        alike: Alike | None = None,
    ) -> None:
        self._alike = alike or Alike.each(program.setup.n_ranks)
        planner = Planner(self._alike, costs, sharing, shared)
        program.replay(planner)
        self.tasks = planner.tasks
        self._env = simpy.Environment(initial_time=0)
        self._links = Links(self._env, list(sharing.capacities) if sharing else [])
        self._devices = self._links.devices = self._make_devices(shared) if shared else None
        self._progress: dict[str, list[_Progress]] = {}
        self._started: dict[int, list[_Flag]] = {}
        self._arrived: dict[int, list[_Flag]] = {}
        self._flows: dict[int, list[list[simpy.Event]]] = {}
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
        for task in self.tasks:
            by_lane.setdefault(task.operation.lane, []).append(task)
            if task.to:
                self._started[task.operation.id] = self._flags()
            if task.to or task.group:
                self._arrived[task.operation.id] = self._flags()
        self._progress = {lane: [_Progress() for _ in range(self._n_ranks)] for lane in by_lane}
        processes = [
            self._env.process(self._host(rank, tasks) if lane == HOST else self._lane(rank, lane, tasks))
            for lane, tasks in by_lane.items()
            for rank in range(self._n_ranks)
        ]
        with _without_collector():
            self._env.run()
        if any(process.is_alive for process in processes):
            raise StalledError(find_stalls(self.tasks))
        if self._observer is not None:
            self.report(self._observer)
        return max((max(0, *task.end_ns) for task in self.tasks if task.operation.lane != HOST), default=0)

    @property
    def _n_ranks(self) -> int:
        return len(self._alike.first)

    def _make_devices(self, shared: SharedCosts) -> Devices:
        return Devices(self._n_ranks, self._links, shared.memory_bytes_per_s, shared.communication_first)

    def _flags(self) -> list[_Flag]:
        return [_Flag() for _ in range(self._n_ranks)]

    def report(self, observer: Observer) -> None:
        """Tell of every operation."""
        spread = self._alike.spread
        for task in self.tasks:
            observer.observe(task.operation, spread(task.start_ns), spread(task.end_ns))

    def _lane(self, rank: int, lane: str, tasks: list[Task]) -> Wait:
        env, interfere, progress = self._env, self._devices is not None, self._progress[lane][rank]
        lanes = {lane: each[rank] for lane, each in self._progress.items()}
        for task in tasks:
            if task.present is not None and not task.present[rank]:
                continue
            if self._lost is not None and rank == self._lost[0] and env.now >= self._lost[1]:
                return
            for other, numbers in task.waits:
                if lanes[other].done < numbers[rank]:
                    yield lanes[other].wait(env, numbers[rank])
            issued_ns = task.issued_ns[rank] if task.after is None else task.is_issued_ns(rank)
            if issued_ns > env.now:
                yield env.timeout(issued_ns - env.now)
            task.ready_ns[rank] = task.start_ns[rank] = int(env.now)
            if task.to or task.group:
                if interfere:
                    yield from self._beside(rank, task)
                else:
                    yield from self._exchange(rank, task) if task.to else self._collective(rank, task)
            elif task.device_ns[rank]:
                if interfere and lane == COMPUTE:  # copies hold no multiprocessors, and move little beside memory
                    yield from self._kernel(rank, task)
                else:
                    yield env.timeout(task.device_ns[rank])
            task.end_ns[rank] = int(env.now)
            progress.advance(task.operation.id)

    def _host(self, rank: int, tasks: list[Task]) -> Wait:
        """The host of a rank, where it waits: from when it would issue until everything has arrived."""
        env, progress = self._env, self._progress[HOST][rank]
        lanes = {lane: each[rank] for lane, each in self._progress.items()}
        for task in tasks:
            if task.present is not None and not task.present[rank]:
                continue
            issued_ns = task.is_issued_ns(rank)
            if issued_ns > env.now:
                yield env.timeout(issued_ns - env.now)
            task.ready_ns[rank] = task.start_ns[rank] = int(env.now)
            for other, numbers in task.waits:
                if lanes[other].done < numbers[rank]:
                    yield lanes[other].wait(env, numbers[rank])
            yield env.timeout(task.device_ns[rank])
            task.end_ns[rank] = int(env.now)
            progress.advance(task.operation.id)

    def _beside(self, rank: int, task: Task) -> Wait:
        """Communication, which takes its multiprocessors as soon as kernels leave it any, and gives them back."""
        devices, use = self._devices, task.use
        assert devices is not None and use is not None
        sms = use.sms[rank]
        if sms:
            if not devices.communication_first:
                yield _Late(self._env)
                room = devices.room(rank)
                if room is not None:
                    yield room
                task.start_ns[rank] = int(self._env.now)
            devices.take(rank, sms)
        yield from self._exchange(rank, task) if task.to else self._collective(rank, task)
        if sms:
            devices.give_back(rank, sms)

    def _kernel(self, rank: int, task: Task) -> Wait:
        """A kernel that others on its GPU may slow."""
        assert task.use is not None and self._devices is not None
        yield self._devices.start_kernel(rank, task.device_ns[rank], task.use).due
        self._devices.end_kernel(rank)

    def _move(self, rank: int, task: Task, ask: Ask | None, ranks: Sequence[int]) -> simpy.Event:
        """The data of a rank, or of its group, begin to move; the event of their arrival."""
        use, devices = task.use, self._devices
        if use is None or devices is None or not task.device_ns[rank]:
            return self._env.timeout(task.device_ns[rank]) if ask is None else self._links.send(ask)[1]
        busy = [rank] if task.to else ranks  # what a rank receives is counted with what it sends
        traffic = [(each, use.traffic[each] if each in busy else 0.0) for each in ranks]
        if ask is None:
            work = Work(task.device_ns[rank], self._links)
            devices.move(work, traffic)
            arrived: simpy.Event = work.due
            arrived.callbacks.append(lambda _: devices.rest(work))
            return arrived
        flow, arrived = self._links.send(ask, lambda _: devices.rest(moving))
        moving: Moving = SharedMoving(flow, self._links.network)
        devices.move(moving, traffic)
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
        task.arrived_ns[rank] = int(self._env.now)
        arrived[rank].set()
        sender = arrived[task.source[rank]]
        if not sender.happened:
            yield sender.wait(self._env)

    def _scatter(self, rank: int, task: Task, flows: tuple[Sequence[int], Sequence[int]]) -> Wait:
        """An all-to-all of uneven parts: its flows share links one by one, and are never quicker than alone."""
        group, number = task.group[rank], task.operation.id
        met = self._arrived[number][group]
        task.missing[group] -= 1
        if task.missing[group]:
            yield met.wait(self._env)
        else:
            self._flows[number] = self._send_all(flows, task.asks)
            met.set()
        if task.device_ns[rank]:
            yield self._move(rank, task, None, (rank,))
        yield from self._flows[number][rank]

    def _send_all(
        self, flows: tuple[Sequence[int], Sequence[int]], asks: Sequence[Ask | None]
    ) -> list[list[simpy.Event]]:
        """By rank, the arrivals of what it sends and receives over links that it may have to share."""
        arrivals: list[list[simpy.Event]] = [[] for _ in range(self._n_ranks)]
        for source, target, ask in zip(*flows, asks, strict=True):
            if ask is not None:
                arrived = self._links.send(ask)[1]
                arrivals[source].append(arrived)
                arrivals[target].append(arrived)
        return arrivals

    def _collective(self, rank: int, task: Task) -> Wait:
        work = task.operation.work
        if isinstance(work, Collective) and work.splits is not None and any(task.asks):
            source, target = work.flows()
            yield from self._scatter(rank, task, (source.tolist(), target.tolist()))
            return
        group, met = task.group[rank], self._arrived[task.operation.id]
        ask = task.asks[group] if any(task.asks) else None
        members = self._members(task, group) if ask is not None or task.use is not None else []
        together = ask is not None or self._is_even(task, members)
        task.missing[group] -= 1
        if task.missing[group]:
            yield met[group].wait(self._env)
        else:
            if together:
                yield self._move(rank, task, ask, members)
            met[group].set()
        if not together and task.device_ns[rank]:
            yield self._move(rank, task, None, (rank,))

    def _members(self, task: Task, group: int) -> list[int]:
        here = task.present
        return [each for each, of in enumerate(task.group) if of == group and (here is None or here[each])]

    def _is_even(self, task: Task, members: list[int]) -> bool:
        """Whether all of a group take as long: they then are one transfer."""
        return bool(members) and len({task.device_ns[each] for each in members}) == 1

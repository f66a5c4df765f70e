"""The discrete-event engine, on SimPy: the reference, one process per (rank, lane).

A lane's process takes its operations in order. Whatever an operation waits for is some other lane of the same rank
having finished some operation, so each lane publishes how far it is, and an event is made only where somebody must wait
for it. The host's times are running sums, known before the run, from its last wait for the device on.

Exchanges and collectives hold their lanes from their own start (`communication`). Where transfers share links
(`sharing`), a network of flows (`fluid`) says when they arrive; where kernels and communication interfere
(`interference`), `devices` says how fast each may go, and when communication gets its SMs. Both are asked once per
instant, after everything else that happens then. What happens at a time depends on what came before alone, so there is
one answer and nothing to converge, however long the Program. Of ranks that are alike (`alike`) one is followed. Times
are integer nanoseconds. Without sharing and interference the result equals `maxplus`, row by row.
"""

from __future__ import annotations

import simpy

from simulator.engines.alike import Alike
from simulator.engines.costs import Costs, Observer
from simulator.engines.des.communication import Communication, Wait
from simulator.engines.des.events import Late, Progress
from simulator.engines.des.links import Links
from simulator.engines.devices import Devices
from simulator.engines.interference import SharedCosts
from simulator.engines.planner import Planner, Task
from simulator.engines.saturation import Saturation
from simulator.engines.sharing import Sharing
from simulator.engines.stalls import StalledError, find_stalls
from simulator.program.operations import COMPUTE, HOST
from simulator.program.program import Replayed
from traces.garbage import collector_paused


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
        self._progress: dict[str, list[Progress]] = {}
        self._communication = Communication(self._env, self._links, self._devices, self._n_ranks)
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
            Where operations wait for each other in a circle, or for a lost rank, or what that should do is missing.
        """
        by_lane: dict[str, list[Task]] = {COMPUTE: []}
        for task in self.tasks:
            by_lane.setdefault(task.operation.lane, []).append(task)
            self._communication.expect(task)
        self._progress = {lane: [Progress() for _ in range(self._n_ranks)] for lane in by_lane}
        processes = [
            self._env.process(self._host(rank, tasks) if lane == HOST else self._lane(rank, lane, tasks))
            for lane, tasks in by_lane.items()
            for rank in range(self._n_ranks)
        ]
        with collector_paused():
            self._env.run()
        if any(process.is_alive for process in processes) or self._misses_a_part():
            raise StalledError(find_stalls(self.tasks))
        if self._observer is not None:
            self.report(self._observer)
        return max((max(0, *task.end_ns) for task in self.tasks if task.operation.lane != HOST), default=0)

    def _misses_a_part(self) -> bool:
        """Whether a lost rank has left something undone that nobody waits for."""
        return self._lost is not None and any(
            task.end_ns[self._lost[0]] < 0 and (task.operation.ranks is None or task.operation.ranks[self._lost[0]])
            for task in self.tasks
        )

    @property
    def _n_ranks(self) -> int:
        return len(self._alike.first)

    def _make_devices(self, shared: SharedCosts) -> Devices:
        return Devices(self._n_ranks, self._links, shared.memory_bytes_per_s, shared.communication_first)

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
                    yield from self._communication.carry_out(rank, task)
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
                yield Late(self._env)
                room = devices.room(rank)
                if room is not None:
                    yield room
                task.start_ns[rank] = int(self._env.now)
            devices.take(rank, sms)
        yield from self._communication.carry_out(rank, task)
        if sms:
            devices.give_back(rank, sms)

    def _kernel(self, rank: int, task: Task) -> Wait:
        """A kernel that others on its GPU may slow."""
        assert task.use is not None and self._devices is not None
        yield self._devices.start_kernel(rank, task.device_ns[rank], task.use).due
        self._devices.end_kernel(rank)

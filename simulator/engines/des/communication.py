"""Communication in a discrete-event run: ranks meet, data move, and arrive.

An exchange's data move once both ends have started, and it ends when what a rank sends and what it receives have both
arrived; a collective ends one duration after the last of its group has started, an all-to-all of uneven parts on each
rank with the last that it sends or receives.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import simpy

from simulator.engines.des.events import Flag
from simulator.engines.des.links import Links
from simulator.engines.devices import Devices, Moving, SharedMoving, Work
from simulator.engines.flows import Ask
from simulator.engines.planner import Task
from simulator.program.operations import Collective

Wait = Generator[simpy.Event, None, None]
"""What a lane waits for, one event after the other."""


class Communication:
    """Exchanges and collectives of a run.

    Parameters
    ----------
    env, links, devices : the clock, links that are shared, and GPUs on which data that move meet kernels.
    n_ranks : ranks that are followed.
    """

    def __init__(self, env: simpy.Environment, links: Links, devices: Devices | None, n_ranks: int) -> None:
        self._env, self._links, self._devices, self._n_ranks = env, links, devices, n_ranks
        self._started: dict[int, list[Flag]] = {}
        self._arrived: dict[int, list[Flag]] = {}
        self._flows: dict[int, list[list[simpy.Event]]] = {}

    def expect(self, task: Task) -> None:
        """A task of the run, of which ranks will take part."""
        if task.to:
            self._started[task.operation.id] = self._flags()
        if task.to or task.group:
            self._arrived[task.operation.id] = self._flags()

    def carry_out(self, rank: int, task: Task) -> Wait:
        """A rank's part of an exchange or a collective."""
        return self._exchange(rank, task) if task.to else self._collective(rank, task)

    def _flags(self) -> list[Flag]:
        return [Flag() for _ in range(self._n_ranks)]

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

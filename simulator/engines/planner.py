"""From a Program to tasks for a discrete-event engine: prices, and what each waits for, by lane and operation.

The rules are those of `simulator.program.tape`, said in terms of how far other lanes of the same rank are: a task may
start once each (lane, number) it names has finished operation ``number``. Where the host waits (rule 6), what it issues
after that counts its time from the end of the wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress

import numpy as np

from simulator.engines.alike import Alike
from simulator.engines.costs import Costs
from simulator.engines.flows import Ask
from simulator.engines.interference import SharedCosts
from simulator.engines.sharing import Sharing
from simulator.program.operations import COMPUTE, HOST, Buffer, Collective, Exchange, Operation
from simulator.program.tape import Ignore


class Use:
    """What an operation takes of each rank's GPU, found when it is asked for: few kernels meet communication.

    Parameters
    ----------
    shared : prices.
    alike : ranks; "by rank" means by class.
    device_ns : time alone, by rank.
    """

    def __init__(self, shared: SharedCosts, alike: Alike, operation: Operation, device_ns: list[int]) -> None:
        self._shared, self._alike, self._operation, self._device_ns = shared, alike, operation, device_ns
        self._slowdowns: dict[int, list[float]] = {}

    @cached_property
    def sms(self) -> list[int]:
        """Multiprocessors that communication holds."""
        return self._alike.pick(self._shared.sms(self._operation))

    @cached_property
    def traffic(self) -> list[float]:
        """Bytes per second to and from memory, alone; no more than memory sustains."""
        moved, memory = self._alike.pick(self._shared.traffic_bytes(self._operation)), self._shared.memory_bytes_per_s
        return [min(each / max(time_ns, 1) * 1e9, memory) for each, time_ns in zip(moved, self._device_ns, strict=True)]

    @cached_property
    def leaves(self) -> float:
        """Share of its rate that communication keeps beside it."""
        return self._shared.leaves(self._operation)

    def handing(self, rank: int) -> Sequence[tuple[float, float]]:
        """When its kernels hand out blocks: (from, until), as shares of its time alone."""
        return self._shared.handing(self._operation, int(self._alike.first[rank]))

    def slowdown(self, taken: int) -> list[float]:
        """How much longer a kernel takes with so many multiprocessors less."""
        if taken not in self._slowdowns:
            slower = self._alike.pick(self._shared.slower_ns(self._operation, taken))
            pairs = zip(slower, self._device_ns, strict=True)
            self._slowdowns[taken] = [max(each / max(time_ns, 1), 1.0) for each, time_ns in pairs]
        return self._slowdowns[taken]


@dataclass(slots=True)
class Task:
    """An operation with its prices, what it waits for on each rank, and where its ranks meet.

    Attributes
    ----------
    issued_ns : when the host has issued it, by rank: from the start, or from the end of ``after``.
    device_ns : its time alone, by rank.
    waits : lanes of the same rank, and the operation that each must have finished, by rank.
    ready_ns, start_ns, end_ns : when it could run and when it ran, by rank; -1 where it has not.
    arrived_ns : of an exchange, when what a rank sends has arrived.
    present : whether each rank takes part; None where all do.
    after : by rank, the task in which the host waited last, and after which it issued this one.
    to, source : of an exchange, by rank.
    group, missing : of a collective: group of each rank, and the ranks of each group that have yet to start.
    asks : what an exchange (by rank) or a collective (by group) asks of shared links; empty where nothing is shared.
    use : what it takes of its GPUs, where kernels and communication interfere.
    """

    operation: Operation
    issued_ns: list[int]
    device_ns: list[int]
    waits: list[tuple[str, list[int]]]
    ready_ns: list[int]
    start_ns: list[int]
    end_ns: list[int]
    arrived_ns: list[int] = field(default_factory=list)
    present: list[bool] | None = None
    after: Sequence[Task | None] | None = None
    to: list[int] = field(default_factory=list)
    source: list[int] = field(default_factory=list)
    group: list[int] = field(default_factory=list)
    missing: dict[int, int] = field(default_factory=dict)
    asks: Sequence[Ask | None] = ()
    use: Use | None = None

    def is_issued_ns(self, rank: int) -> int:
        """When the host has issued it, once what ``after`` names has ended."""
        after = None if self.after is None else self.after[rank]
        return self.issued_ns[rank] + (after.end_ns[rank] if after is not None else 0)


class Planner(Ignore):
    """A sink that makes tasks, in issue order.

    Parameters
    ----------
    alike : the ranks; of those that are alike one is planned, and "by rank" means by class.
    costs : prices of operations.
    sharing : transfers that share links.
    shared : what operations take from others on their GPU.

    Attributes
    ----------
    tasks : one per operation.
    """

    def __init__(
        self, alike: Alike, costs: Costs, sharing: Sharing | None = None, shared: SharedCosts | None = None
    ) -> None:
        self._alike, self._costs, self._sharing, self._shared = alike, costs, sharing, shared
        self._n = len(alike.first)
        self._issued = np.zeros(self._n, dtype=np.int64)
        self._after: list[Task | None] | None = None
        self._synchronised: list[int] | None = None
        self._last_compute = [-1] * self._n
        self._written: dict[int, dict[str, list[int]]] = {}
        self._read: dict[int, dict[str, list[int]]] = {}
        self.tasks: list[Task] = []

    def release(self, buffer: Buffer) -> None:
        """Forget who used it."""
        self._written.pop(buffer.id, None)
        self._read.pop(buffer.id, None)

    def operation(self, operation: Operation) -> None:
        """A task for it."""
        alike = self._alike
        present = None if operation.ranks is None else operation.ranks[alike.first]
        issued = self._issued + np.array(alike.pick(self._costs.host_ns(operation)))
        self._issued = issued if present is None else np.where(present, issued, self._issued)
        waits = self._waits(operation, None if present is None else present.tolist())
        device = alike.pick(self._costs.device_ns(operation))
        ready, start, end = ([-1] * self._n for _ in range(3))
        task = Task(operation, self._issued.tolist(), device, waits, ready, start, end, after=self._after)
        task.present = None if present is None else present.tolist()
        self._join(task)
        if self._sharing is not None:
            task.asks = self._sharing.asks(operation)
        if self._shared is not None:
            task.use = Use(self._shared, alike, operation, device)
        if operation.lane == HOST:
            self._synchronise(task)
        self.tasks.append(task)

    def _join(self, task: Task) -> None:
        """Whom its ranks meet."""
        operation, work = task.operation, task.operation.work
        if isinstance(work, Exchange):
            task.to, task.source = self._alike.partners(work.ring.to), self._alike.partners(work.ring.source)
            task.arrived_ns = [-1] * self._n
        elif isinstance(work, Collective):
            task.group = self._alike.groups(operation)
            task.missing = dict(Counter(task.group if task.present is None else compress(task.group, task.present)))

    def _synchronise(self, task: Task) -> None:
        """The host goes on when the task has ended: what it issues next counts from there."""
        number, present = task.operation.id, task.present or [True] * self._n
        after, before = self._after or [None] * self._n, self._synchronised or [-1] * self._n
        self._after = [task if here else old for here, old in zip(present, after, strict=True)]
        self._synchronised = [number if here else old for here, old in zip(present, before, strict=True)]
        self._issued = np.where(present, 0, self._issued)

    def _waits(self, operation: Operation, present: list[bool] | None) -> list[tuple[str, list[int]]]:
        lane, found = operation.lane, dict[str, list[int]]()
        if lane == COMPUTE:
            self._last_compute = self._numbers(operation, present, self._last_compute)
        else:
            found[COMPUTE] = self._last_compute
        if self._synchronised is not None:
            found[HOST] = self._synchronised
        for buffer in (*operation.reads, *operation.writes):
            _keep_latest(found, self._written.get(buffer.id, {}))
        for buffer in operation.writes:
            _keep_latest(found, self._read.get(buffer.id, {}))
        if lane not in (COMPUTE, HOST):
            for uses, buffers in ((self._read, operation.reads), (self._written, operation.writes)):
                for buffer in buffers:
                    by_lane = uses.setdefault(buffer.id, {})
                    by_lane[lane] = self._numbers(operation, present, by_lane.get(lane))
        return [wait for wait in found.items() if wait[0] != lane]

    def _numbers(self, operation: Operation, present: list[bool] | None, before: list[int] | None) -> list[int]:
        """The operation's number on each rank that takes part, elsewhere that of the last before it, or -1."""
        number = operation.id
        if present is None:
            return [number] * self._n
        return [number if here else old for here, old in zip(present, before or [-1] * self._n, strict=True)]


def _keep_latest(found: dict[str, list[int]], uses: Mapping[str, list[int]]) -> None:
    """Of several operations on a lane the last, on each rank."""
    for lane, numbers in uses.items():
        before = found.get(lane)
        same = before is None or before is numbers
        found[lane] = numbers if same else [max(pair) for pair in zip(before or (), numbers, strict=True)]

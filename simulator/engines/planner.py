"""From a Program to tasks for a discrete-event engine: prices, and what each waits for, by lane and operation.

The rules are those of `simulator.program.tape`, said in terms of how far other lanes of the same rank are: a task may
start once each (lane, number) it names has finished operation ``number``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from simulator.engines.costs import Costs
from simulator.engines.flows import Ask
from simulator.engines.interference import SharedCosts
from simulator.engines.sharing import Sharing
from simulator.program.operations import COMPUTE, HOST, Collective, Column, Exchange, IntArray, Operation
from simulator.program.program import Program
from traces.errors import InputError


@dataclass(slots=True)
class Use:
    """What an operation takes of each rank's GPU.

    Attributes
    ----------
    sms : multiprocessors that communication holds.
    traffic : bytes per second to and from memory, alone.
    slowdown : how much longer a kernel takes with so many multiprocessors less.
    """

    sms: list[int]
    traffic: list[float]
    slowdown: Callable[[int], list[float]]


@dataclass(slots=True)
class Task:
    """An operation with its prices, what it waits for on each rank, and where its ranks meet.

    Attributes
    ----------
    issued_ns, device_ns : when the host has issued it, and its time alone, by rank.
    start_ns, end_ns : when it ran, by rank; -1 where it has not.
    waits : lanes of the same rank, and the operation that each must have finished, by rank.
    to, source : of an exchange, by rank.
    group, missing : of a collective: group of each rank, and the ranks of each group that have yet to start.
    asks : what an exchange (by rank) or a collective (by group) asks of shared links; empty where nothing is shared.
    use : what it takes of its GPUs, where kernels and communication interfere.
    """

    operation: Operation
    issued_ns: list[int]
    device_ns: list[int]
    waits: list[tuple[str, list[int]]]
    start_ns: list[int]
    end_ns: list[int]
    to: list[int] = field(default_factory=list)
    source: list[int] = field(default_factory=list)
    group: list[int] = field(default_factory=list)
    missing: dict[int, int] = field(default_factory=dict)
    asks: Sequence[Ask | None] = ()
    use: Use | None = None


class Planner:
    """Makes tasks in issue order."""

    def __init__(
        self, n_ranks: int, costs: Costs, sharing: Sharing | None = None, shared: SharedCosts | None = None
    ) -> None:
        self._n_ranks, self._costs, self._sharing, self._shared = n_ranks, costs, sharing, shared
        self._issued = np.zeros(n_ranks, dtype=np.int64)
        self._last_compute = [-1] * n_ranks
        self._written: dict[int, dict[str, list[int]]] = {}
        self._read: dict[int, dict[str, list[int]]] = {}

    def plan(self, program: Program) -> list[Task]:
        """A task for each operation, in issue order."""
        return [self._task(operation) for operation in program.operations]

    def _task(self, operation: Operation) -> Task:
        if operation.lane == HOST:
            raise InputError("the discrete-event engine knows no hosts that wait", remedy="use the max-plus engine")
        issued = self._issued + self._costs.host_ns(operation)
        self._issued = issued if operation.ranks is None else np.where(operation.ranks, issued, self._issued)
        waits = self._waits(operation)
        device = self._per_rank(self._costs.device_ns(operation))
        never = [-1] * self._n_ranks
        task = Task(operation, self._issued.tolist(), device, waits, never, list(never))
        work = operation.work
        if isinstance(work, Exchange):
            task.to, task.source = work.ring.to.tolist(), work.ring.source.tolist()
        elif isinstance(work, Collective):
            task.group = [0] * self._n_ranks if work.groups is None else work.groups.tolist()
            present = task.group if operation.ranks is None else np.array(task.group)[operation.ranks].tolist()
            task.missing = dict(Counter(present))
        if self._sharing is not None:
            task.asks = self._sharing.asks(operation)
        if self._shared is not None:
            task.use = self._use(operation, np.array(device))
        return task

    def _use(self, operation: Operation, device_ns: IntArray) -> Use:
        shared = self._shared
        assert shared is not None
        time_ns = np.maximum(device_ns, 1)
        traffic = np.asarray(shared.traffic_bytes(operation)) / time_ns * 1e9

        @cache
        def slowdown(taken: int) -> list[float]:
            ratios: list[float] = np.maximum(np.asarray(shared.slower_ns(operation, taken)) / time_ns, 1.0).tolist()
            return ratios if isinstance(ratios, list) else [ratios] * self._n_ranks

        per_rank: list[float] = np.broadcast_to(traffic, self._n_ranks).tolist()
        return Use(self._per_rank(shared.sms(operation)), per_rank, slowdown)

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
            waits += self._written.get(buffer.id, {}).items()
        for buffer in operation.writes:
            waits += self._read.get(buffer.id, {}).items()
        if lane != COMPUTE:
            for uses, buffers in ((self._read, operation.reads), (self._written, operation.writes)):
                for buffer in buffers:
                    _keep(uses.setdefault(buffer.id, {}), lane, numbers)
        return [wait for wait in waits if wait[0] != lane]

    def _numbers(self, operation: Operation) -> list[int]:
        """The operation's number on each rank that takes part, elsewhere one that nobody waits for."""
        if operation.ranks is None:
            return [operation.id] * self._n_ranks
        numbers: list[int] = np.where(operation.ranks, operation.id, -1).tolist()
        return numbers


def _keep(uses: dict[str, list[int]], lane: str, numbers: list[int]) -> None:
    """The last use on a lane: of ranks that take no part, the one before."""
    before = uses.get(lane)
    uses[lane] = numbers if before is None else [max(pair) for pair in zip(before, numbers, strict=True)]

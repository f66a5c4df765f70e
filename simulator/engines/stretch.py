"""Interference in max-plus: operations that overlap are stretched, by a fixed point.

A pass runs `maxplus`; its times say which kernels and transfers overlap, for how long and with whom, from which follow
their durations in the next pass, until the makespan changes by at most 0.1 %. Where work goes on at speed v during a
time o, it lasts o (1 - v) longer:

    duration = time alone + sum over pieces of  o (1 - v)

with the speeds of `interference`, constant within each piece between two moments at which anything begins or ends on
the GPU. A transfer is as slow as the slower of its ends, a collective as its slowest rank.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.engines.costs import Observer
from simulator.engines.interference import SharedCosts
from simulator.engines.maxplus import MaxPlus
from simulator.program.operations import Collective, Column, Exchange, IntArray, Operation
from simulator.program.program import Program

FloatArray = NDArray[np.float64]

TOLERANCE = 1e-3
"""Relative change of the makespan at which the durations are taken as found."""

MOST_PASSES = 12


@dataclass
class Stretched:
    """Costs with what interference adds to each operation on each rank, and the times of the last pass.

    Attributes
    ----------
    passes : of max-plus until the durations were found.
    """

    program: Program
    costs: SharedCosts
    passes: int = 0
    _extra: IntArray = field(init=False)
    _start: IntArray = field(init=False)
    _end: IntArray = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is stretched."""
        shape = len(self.program.operations), self.program.setup.n_ranks
        self._extra, self._start, self._end = (np.zeros(shape, dtype=np.int64) for _ in range(3))
        self._place = {operation.id: number for number, operation in enumerate(self.program.operations)}

    def run(self, observer: Observer | None = None) -> MaxPlus:
        """Find the durations; the engine after the last pass, of which the observer is told."""
        overlaps = _Overlaps(self.program, self.costs)
        makespan_ns, n_ranks = 0, self.program.setup.n_ranks
        while True:
            engine = MaxPlus(n_ranks, self, self)
            self.program.replay(engine)
            self.passes += 1
            found = abs(engine.makespan_ns - makespan_ns) <= TOLERANCE * engine.makespan_ns
            if found or self.passes == MOST_PASSES:
                break
            makespan_ns = engine.makespan_ns
            self._extra = overlaps.extra_ns(self._start, self._end, self._extra)
        if observer is not None:
            engine = MaxPlus(n_ranks, self, observer)
            self.program.replay(engine)
        return engine

    def host_ns(self, operation: Operation) -> Column:
        """As it is."""
        return self.costs.host_ns(operation)

    def device_ns(self, operation: Operation) -> Column:
        """Stretched."""
        extra: IntArray = self._extra[self._place[operation.id]]
        return self.costs.device_ns(operation) + extra

    def observe(self, operation: Operation, start_ns: Column, end_ns: Column) -> None:
        """Keep the times."""
        place = self._place[operation.id]
        self._start[place], self._end[place] = start_ns, end_ns


class _Overlaps:
    """What overlaps cost, from the times of a pass."""

    def __init__(self, program: Program, costs: SharedCosts) -> None:
        self._operations, self._n_ranks = program.operations, program.setup.n_ranks
        self._memory = costs.memory_bytes_per_s
        self._time = self._matrix([costs.device_ns(operation) for operation in self._operations])
        traffic = self._matrix([costs.traffic_bytes(operation) for operation in self._operations])
        self._traffic = traffic / np.maximum(self._time, 1) * 1e9
        self._sms = self._matrix([costs.sms(operation) for operation in self._operations])
        self._present = np.array([self._ranks(operation) for operation in self._operations])
        moves = [isinstance(operation.work, Exchange | Collective) for operation in self._operations]
        self._moves = np.array(moves, dtype=bool)
        self._costs = costs
        self._speed: dict[int, FloatArray] = {}

    def _matrix(self, columns: list[Column]) -> IntArray:
        rows = [np.broadcast_to(np.asarray(column, dtype=np.int64), self._n_ranks) for column in columns]
        return np.array(rows).reshape(len(columns), self._n_ranks)

    def _ranks(self, operation: Operation) -> NDArray[np.bool_]:
        return np.ones(self._n_ranks, dtype=bool) if operation.ranks is None else operation.ranks

    def _speeds(self, taken: int) -> FloatArray:
        """Speed of every kernel, d / d_s."""
        slower = self._matrix([self._costs.slower_ns(operation, taken) for operation in self._operations])
        return np.minimum(np.maximum(self._time, 1) / np.maximum(slower, 1), 1.0)

    def extra_ns(self, start: IntArray, end: IntArray, before: IntArray) -> IntArray:
        """Nanoseconds that each operation lasts longer on each rank than alone, where so far it lasted ``before``."""
        extra = np.zeros(start.shape)
        moving_from = np.maximum(start, end - self._time - before)
        for rank in range(self._n_ranks):
            self._add_rank(extra[:, rank], rank, start[:, rank], moving_from[:, rank], end[:, rank])
        for number in np.flatnonzero(self._moves).tolist():
            extra[number] = _slowest(self._operations[number], extra[number])
        return np.rint(extra).astype(np.int64)

    def _add_rank(
        self, extra: FloatArray, rank: int, start: IntArray, moving_from: IntArray, end: IntArray
    ) -> None:  # fmt: skip
        """Cut a rank's time where anything begins or ends; within a piece all speeds are constant."""
        present = self._present[:, rank] & (end > start)
        kernels, transfers = np.flatnonzero(present & ~self._moves), np.flatnonzero(present & self._moves)
        edges = np.unique(np.concatenate([start[present], end[present], moving_from[transfers]]))
        if not len(transfers) or not len(kernels):
            return
        pieces = np.diff(edges)
        begins, moves, ends = (np.searchsorted(edges, each[transfers]) for each in (start, moving_from, end))
        taken = _running(len(edges), begins, ends, self._sms[transfers, rank])
        traffic = _running(len(edges), moves, ends, self._traffic[transfers, rank])
        latest = np.searchsorted(start[kernels], edges[:-1], "right") - 1
        kernel = kernels[np.maximum(latest, 0)]
        runs = (latest >= 0) & (edges[:-1] < end[kernel])
        of_memory = self._memory / np.maximum(traffic + np.where(runs, self._traffic[kernel, rank], 0.0), self._memory)
        of_sms = self._speed_beside(kernel, rank, taken)
        np.add.at(extra, kernel[runs], (pieces * (1 - np.minimum(of_sms, of_memory)))[runs])
        lost = np.concatenate([[0.0], np.cumsum(pieces * (1 - of_memory))])
        extra[transfers] += lost[ends] - lost[moves]

    def _speed_beside(self, kernel: IntArray, rank: int, taken: IntArray) -> FloatArray:
        """Speed of kernels while so many SMs are taken."""
        speed = np.ones(len(kernel))
        for sms in np.unique(taken[taken > 0]).tolist():
            if sms not in self._speed:
                self._speed[sms] = self._speeds(sms)
            speed[taken == sms] = self._speed[sms][kernel[taken == sms], rank]
        return speed


def _running(edges: int, begins: IntArray, ends: IntArray, amounts: NDArray[Any]) -> NDArray[Any]:
    """Sum of the amounts that are running in each piece between edges."""
    change = np.zeros(edges, dtype=amounts.dtype)
    np.add.at(change, begins, amounts)
    np.subtract.at(change, ends, amounts)
    return np.cumsum(change)[:-1]


def _slowest(operation: Operation, extra: FloatArray) -> FloatArray:
    """Of both ends of each transfer; of all ranks of a collective's group."""
    work = operation.work
    if isinstance(work, Exchange):
        return np.maximum(extra, extra[work.ring.to])
    assert isinstance(work, Collective)
    groups = np.zeros(len(extra), dtype=np.int64) if work.groups is None else work.groups
    most = np.zeros(int(groups.max()) + 1)
    np.maximum.at(most, groups, extra)
    return np.asarray(most[groups])

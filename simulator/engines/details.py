"""What the host did: when it issued each operation, and how memory in use changed, on every rank.

    issued_i = issued_(i-1) + host_ns_i      the host issues operations one after the other, from 0
    in use   = buffers allocated and not yet released, changed at the time of the last issue before it

The call to the driver is the last of an operation's host time, `CALL_NS` at most; what comes before is the framework's.
Together with a Timeline this is what a trace shows.
"""

from __future__ import annotations

import numpy as np

from simulator.engines.costs import Costs
from simulator.program.operations import COMPUTE, Buffer, Collective, Column, Exchange, IntArray, Operation, Transfer
from simulator.program.rings import Ring
from simulator.program.tape import Ignore
from traces.launches import Communication, LaneWaits, Launches, MemoryCurve, TraceDetails

CALL_NS = 2_000
"""About what cudaLaunchKernel takes when nothing profiles it; shown only, no time depends on it."""


class Details(Ignore):
    """A sink that follows the hosts.

    Parameters
    ----------
    n_ranks : number of ranks.
    costs : prices of operations, as the engine's.
    """

    def __init__(self, n_ranks: int, costs: Costs) -> None:
        self._n_ranks, self._costs = n_ranks, costs
        self._host = np.zeros(n_ranks, dtype=np.int64)
        self._used = np.zeros(n_ranks, dtype=np.int64)
        self._all = np.arange(n_ranks)
        self._calls: list[tuple[IntArray, IntArray]] = []
        self._changes: list[tuple[IntArray, IntArray]] = []
        self._communication: dict[int, Communication] = {}
        self._rows = 0
        self._written: dict[int, dict[str, IntArray]] = {}
        self._waits: list[tuple[IntArray, IntArray, IntArray]] = []

    def allocate(self, buffer: Buffer) -> None:
        """More in use."""
        self._change(buffer.bytes)

    def release(self, buffer: Buffer) -> None:
        """Less in use."""
        self._written.pop(buffer.id, None)
        self._change(-buffer.bytes)

    def operation(self, operation: Operation) -> None:
        """The host issues it."""
        before = self._host
        issued = before + self._costs.host_ns(operation)
        ranks = self._all
        if operation.ranks is not None:
            issued, ranks = np.where(operation.ranks, issued, before), np.flatnonzero(operation.ranks)
        self._host = issued
        communication = _communication(operation, self._n_ranks)
        if communication is not None:
            self._communication[len(self._calls)] = communication
        self._follow_waits(operation, ranks, before)
        self._calls.append((np.maximum(before, issued - CALL_NS)[ranks], issued[ranks]))

    def result(self) -> TraceDetails:
        """Everything so far, launches in the order in which :class:`simulator.engines.rows.Rows` keeps its rows."""
        none = np.zeros(0, dtype=np.int64)
        start, end = (np.concatenate([none, *(each[i] for each in self._calls)]) for i in (0, 1))
        waits = LaneWaits(*(np.concatenate([none, *(each[i] for each in self._waits)]) for i in range(3)))
        return TraceDetails(Launches(start, end), self._communication, self._memory(), waits)

    def _follow_waits(self, operation: Operation, ranks: IntArray, before: IntArray) -> None:
        """Rules 4 and 5 of `simulator.program.tape`: a lane waits for the last write of a buffer on another lane."""
        rows = np.full(self._n_ranks, -1)
        rows[ranks] = self._rows + np.arange(len(ranks))
        self._rows += len(ranks)
        for buffer in (*operation.reads, *operation.writes):
            for lane, source in self._written.get(buffer.id, {}).items():
                both = (rows >= 0) & (source >= 0)
                if lane != operation.lane and both.any():
                    self._waits.append((before[both], rows[both], source[both]))
        if operation.lane != COMPUTE:
            for buffer in operation.writes:
                of = self._written.setdefault(buffer.id, {})
                of[operation.lane] = np.where(rows >= 0, rows, of.get(operation.lane, -1))

    def _change(self, by: Column) -> None:
        self._used = self._used + by
        self._changes.append((self._host, self._used))

    def _memory(self) -> MemoryCurve:
        """Per rank, the last value at each time."""
        if not self._changes:
            none = np.zeros(0, dtype=np.int64)
            return MemoryCurve(none, none, none)
        time, used = (np.stack([each[i] for each in self._changes], axis=1) for i in (0, 1))
        last = np.append(time[:, 1:] != time[:, :-1], np.ones((self._n_ranks, 1), dtype=bool), axis=1)
        rank = np.broadcast_to(self._all[:, None], time.shape)
        return MemoryCurve(rank[last], time[last], used[last])


def _communication(operation: Operation, n_ranks: int) -> Communication | None:
    work = operation.work
    name = operation.lane.removeprefix("comm:")
    if isinstance(work, Exchange):
        ring = work.ring
        sent = np.broadcast_to(np.asarray(work.bytes), n_ranks)
        group = _ring_numbers(ring) if isinstance(ring, Ring) else np.zeros(n_ranks, dtype=np.int64)
        return Communication(name, group, sent, sent[ring.source], ring.to, ring.source)
    if isinstance(work, Collective):
        group = np.zeros(n_ranks, dtype=np.int64) if work.groups is None else work.groups
        size = np.bincount(group)[group]
        given = np.broadcast_to(np.asarray(work.bytes), n_ranks)
        received = {"all_gather": given * size, "reduce_scatter": given // size}.get(work.collective, given)
        if isinstance(work, Transfer):
            return Communication(name, group, given, received, work.to, _sources(work.to))
        return Communication(name, group, given, received)
    return None


def _ring_numbers(ring: Ring) -> IntArray:
    ranks = np.arange(ring.n_ranks)
    return np.asarray(ranks // (ring.size * ring.step) * ring.step + ranks % ring.step)


def _sources(to: IntArray) -> IntArray:
    """Whom each rank receives from: itself where nobody sends to it."""
    ranks = np.arange(len(to))
    source, sends = ranks.copy(), to != ranks
    source[to[sends]] = ranks[sends]
    return source

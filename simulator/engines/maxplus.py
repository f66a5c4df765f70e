"""The max-plus engine: a recurrence over operations in issue order, each for all ranks at once.

    issued  = host + host_ns;  host = issued
    S       = max(lane, issued, what it waits for)          rules 1 to 5 of `simulator.program.tape`
    end     = S + device_ns                                 local operations
    T       = max(S, S[to]) + device_ns;  end = max(T, T[source])     exchange: both ends must be there, both ways done
    end     = max over the group of S + device_ns           collective
    lane    = end                                           where the rank takes part, else unchanged
    host    = max(issued, what it waits for) + device_ns    where the host synchronises

Times are integer nanoseconds, one number while all ranks agree and an int64 array over ranks from then on (with axes
before it where costs have some: many settings at once). Arrays are never changed once made, so a buffer may keep one as
its time. Exact where nothing is shared (see `des`).
Source: Baccelli et al. 1992, Synchronization and Linearity, chapter 2 (max-plus algebra of event graphs).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.engines.costs import Costs, Observer
from simulator.program.operations import COMPUTE, HOST, Buffer, Collective, Column, Exchange, IntArray, Operation
from simulator.program.tape import Ignore


@dataclass(slots=True)
class _Uses:
    """When each communication lane is done with a buffer."""

    written: dict[str, Column] = field(default_factory=dict)
    read: dict[str, Column] = field(default_factory=dict)


class MaxPlus(Ignore):
    """A sink that computes times as it receives operations.

    Parameters
    ----------
    n_ranks : number of ranks.
    costs : prices of operations.
    observer : is told of every operation.

    Attributes
    ----------
    host, lanes : time at which the host, and each lane, has done all it was given.
    """

    def __init__(self, n_ranks: int, costs: Costs, observer: Observer | None = None) -> None:
        self._n_ranks, self._costs, self._observer = n_ranks, costs, observer
        self.host: Column = 0
        self.lanes: dict[str, Column] = {}
        self._uses: dict[int, _Uses] = {}

    def release(self, buffer: Buffer) -> None:
        """Forget when the buffer was used."""
        self._uses.pop(buffer.id, None)

    def operation(self, operation: Operation) -> None:
        """Advance the host and the operation's lane."""
        lane, ranks = operation.lane, operation.ranks
        issued = self.host + self._costs.host_ns(operation)
        if lane == HOST:
            self._synchronise(operation, issued)
            return
        before = self.lanes.get(lane, 0)
        start = self._ready(operation, latest(before, issued))
        end = self._run(operation, start, self._costs.device_ns(operation))
        if ranks is None:
            self.host, self.lanes[lane] = issued, end
        else:
            self.host = np.where(ranks, issued, self.host)
            self.lanes[lane] = np.where(ranks, end, before)
        if lane != COMPUTE:
            self._keep_uses(operation, end)
        if self._observer:
            self._observer.observe(operation, start, end)

    @property
    def finish_ns(self) -> IntArray:
        """When each rank's last operation ends."""
        last: Column = 0
        for lane in self.lanes.values():
            last = latest(last, lane)
        return np.broadcast_to(np.asarray(last), (*np.shape(last)[:-1], self._n_ranks))

    @property
    def makespan_ns(self) -> int:
        """When the last operation of all ends."""
        return int(self.finish_ns.max())

    def _synchronise(self, operation: Operation, issued: Column) -> None:
        """The host waits, and goes on when everything has arrived."""
        end = self._ready(operation, issued) + self._costs.device_ns(operation)
        self.host = end if operation.ranks is None else np.where(operation.ranks, end, self.host)
        if self._observer:
            self._observer.observe(operation, issued, end)

    def _ready(self, operation: Operation, start: Column) -> Column:
        lane, uses_of, waited = operation.lane, self._uses, None
        if lane != COMPUTE:
            start = latest(start, self.lanes.get(COMPUTE, 0))
        for buffer in operation.reads:
            uses = uses_of.get(buffer.id)
            if uses:
                for writer, end in uses.written.items():
                    if writer != lane and end is not waited:
                        waited = end  # what arrived together is waited for once
                        start = latest(start, end)
        for buffer in operation.writes:
            uses = uses_of.get(buffer.id)
            if uses:
                for user, end in (*uses.written.items(), *uses.read.items()):
                    if user != lane:
                        start = latest(start, end)
        return start

    def _run(self, operation: Operation, start: Column, device_ns: Column) -> Column:
        work = operation.work
        if isinstance(work, Exchange):
            done = (start if isinstance(start, int) else work.ring.latest_with_next(start)) + device_ns
            return done if isinstance(done, int) else work.ring.latest_with_previous(done)
        if isinstance(work, Collective):
            return self._last_of_group(work, operation.ranks, start) + device_ns
        return start + device_ns

    def _last_of_group(self, work: Collective, ranks: NDArray[np.bool_] | None, start: Column) -> Column:
        if isinstance(start, int):
            return start
        if ranks is not None:
            start = np.where(ranks, start, 0)
        if work.groups is None:
            return int(start.max()) if start.ndim == 1 else start.max(axis=-1, keepdims=True)
        last = np.zeros((*start.shape[:-1], int(work.groups.max()) + 1), dtype=np.int64)
        everywhere: Any = (..., work.groups)
        np.maximum.at(last, everywhere, start)
        return np.asarray(last[..., work.groups])

    def _keep_uses(self, operation: Operation, end: Column) -> None:
        lane, ranks = operation.lane, operation.ranks
        for buffer in operation.reads:
            read = self._uses.setdefault(buffer.id, _Uses()).read
            read[lane] = end if ranks is None else np.where(ranks, end, read.get(lane, 0))
        for buffer in operation.writes:
            written = self._uses.setdefault(buffer.id, _Uses()).written
            written[lane] = end if ranks is None else np.where(ranks, end, written.get(lane, 0))


def latest(a: Column, b: Column) -> Column:
    """The later of two times, on every rank."""
    if isinstance(a, int) and isinstance(b, int):
        return a if a >= b else b
    if a is b:
        return a
    return np.maximum(a, b)

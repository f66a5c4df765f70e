"""Ranks that are alike: those whose times are equal, so that an engine need follow only one of each class.

Two ranks are alike if all their operations cost the same, they send to and receive from ranks that are alike, and their
collectives join the same classes of ranks. Classes are split until that holds; what remains is the coarsest such
partition, and as a Program and its prices are all that times depend on, ranks of one class have equal times. Of the 512
ranks of a model that is split over 8 by tensor, context and data, eight are followed.
Source: Paige and Tarjan 1987, Three partition refinement algorithms (the coarsest partition that relations respect).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.engines.interference import SharedCosts
from simulator.program.operations import Attention, Collective, Column, Exchange, Gemm, IntArray, Operation
from simulator.program.program import Replayed
from simulator.program.tape import Ignore


@dataclass(frozen=True, eq=False)
class Alike:
    """A partition of ranks.

    Attributes
    ----------
    first : lowest rank of each class.
    of : class of each rank.
    """

    first: IntArray
    of: IntArray

    @staticmethod
    def each(n_ranks: int) -> Alike:
        """Every rank by itself.

        >>> Alike.each(3).of.tolist()
        [0, 1, 2]
        """
        ranks = np.arange(n_ranks)
        return Alike(ranks, ranks)

    def pick(self, column: Column) -> list[int]:
        """A column over classes."""
        array = np.asarray(column)
        if array.size == 1:
            return [int(array.reshape(-1)[0])] * len(self.first)
        picked: list[int] = array[self.first].tolist()
        return picked

    def spread(self, per_class: list[int]) -> IntArray:
        """A column over ranks."""
        return np.array(per_class, dtype=np.int64)[self.of]

    def partners(self, to: IntArray) -> list[int]:
        """Class that each class sends to."""
        partners: list[int] = self.of[to[self.first]].tolist()
        return partners

    def groups(self, operation: Operation) -> list[int]:
        """Group of each class: that of the ranks, or where there are fewer classes the lowest class that joins it."""
        work, n = operation.work, len(self.of)
        assert isinstance(work, Collective)
        groups = np.zeros(n, dtype=np.int64) if work.groups is None else work.groups
        if len(self.first) == n:
            every: list[int] = groups.tolist()
            return every
        lowest = np.full(int(groups.max()) + 1, n)
        present = slice(None) if operation.ranks is None else operation.ranks
        np.minimum.at(lowest, groups[present], self.of[present])
        return self.pick(lowest[groups])


class Likeness(Ignore):
    """A sink that finds which ranks are alike.

    Parameters
    ----------
    n_ranks : number of ranks.
    costs : prices of operations.
    most : classes beyond which ranks are no longer told apart or together: `result` is then None.

    Attributes
    ----------
    operations : number received.
    """

    def __init__(self, n_ranks: int, costs: SharedCosts, most: int | None = None) -> None:
        self._costs, self._most = costs, n_ranks if most is None else most
        self._first, self._of = np.zeros(1, dtype=np.int64), np.zeros(n_ranks, dtype=np.int64)
        self._seen: dict[int, object] = {}
        self._partners: dict[bytes, IntArray] = {}
        self._groups: dict[tuple[bytes, bytes], Operation] = {}
        self.operations = 0

    def operation(self, operation: Operation) -> None:
        """Split classes by what it costs; keep whom it joins."""
        self.operations += 1
        if len(self._first) > self._most:
            return
        for column in self._columns(operation):
            self._split(column)
        work = operation.work
        if isinstance(work, Exchange):
            if id(work.ring) not in self._seen:
                self._seen[id(work.ring)] = work.ring
                self._partners[work.ring.to.tobytes()] = work.ring.to
                self._partners[work.ring.source.tobytes()] = work.ring.source
        elif isinstance(work, Collective):
            groups, ranks = (b"" if each is None else each.tobytes() for each in (work.groups, operation.ranks))
            self._groups.setdefault((groups, ranks), operation)

    def result(self) -> Alike | None:
        """The classes, after the last operation; None if they are too many."""
        classes = 0
        while classes < len(self._first) <= self._most:
            classes = len(self._first)
            for neighbours in self._partners.values():
                self._split(self._of[neighbours])
            for operation in self._groups.values():
                self._split(self._joined(operation))
        return Alike(self._first, self._of) if len(self._first) <= self._most else None

    def _columns(self, operation: Operation) -> Iterator[NDArray[np.int64] | NDArray[np.bool_]]:
        costs, work = self._costs, operation.work
        columns: list[Column] = [costs.host_ns(operation), costs.device_ns(operation), costs.sms(operation)]
        columns.append(costs.traffic_bytes(operation))
        if isinstance(work, Attention):
            columns.append(work.lowering.index)
        elif isinstance(work, Gemm):
            columns += [work.m, work.planes]
        for column in columns:
            if not isinstance(column, int):
                yield np.asarray(column)
        if operation.ranks is not None:
            yield operation.ranks

    def _joined(self, operation: Operation) -> IntArray:
        """Number of the set of classes that each rank's group consists of."""
        work, n = operation.work, len(self._of)
        assert isinstance(work, Collective)
        groups = np.zeros(n, dtype=np.int64) if work.groups is None else work.groups
        present = np.ones(n, dtype=bool) if operation.ranks is None else operation.ranks
        has = np.zeros((int(groups.max()) + 1, len(self._first)), dtype=bool)
        has[groups[present], self._of[present]] = True
        numbers: IntArray = np.unique(has, axis=0, return_inverse=True)[1].reshape(-1)
        return numbers[groups]

    def _split(self, column: NDArray[np.int64] | NDArray[np.bool_]) -> None:
        """Tell ranks apart that have different entries."""
        if column.size == 1 or bool((column == column[self._first][self._of]).all()):
            return
        _, numbers = np.unique(column, return_inverse=True)
        _, first, of = np.unique(self._of * len(column) + numbers.reshape(-1), return_index=True, return_inverse=True)
        order = np.argsort(first)
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        self._first, self._of = first[order], place[of.reshape(-1)]


def find_alike(program: Replayed, costs: SharedCosts, most: int | None = None) -> Alike | None:
    """Which ranks of a Program are alike; None where that leaves more than ``most`` classes."""
    likeness = Likeness(program.setup.n_ranks, costs, most)
    program.replay(likeness)
    return likeness.result()

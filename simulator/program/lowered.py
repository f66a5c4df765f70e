"""Which kernels every rank launches in a step, for all ranks at once.

What rank r computes in a step depends on whose query part q and whose key part k it holds. `lowering_table` maps
(q, k) to one of a few distinct lowerings; a step's `LoweringColumn` is an index per rank into that list, so that
costing and pair counting work once per distinct lowering, not once per rank and step.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cost_models.masks import Lowering
from simulator.program.chunk_classes import IntArray, Runs

NOTHING = Lowering((), 0, True)
"""What is launched where no pair is attended."""


class LoweringColumn:
    """A lowering per rank, given for each or in runs of ranks that have the same."""

    __slots__ = ("_distinct", "_index", "_runs", "table")

    def __init__(self, table: LoweringSet, index: IntArray | None, runs: Runs | None = None) -> None:
        self.table, self._index, self._runs = table, index, runs
        self._distinct: list[int] | None = None

    @property
    def index(self) -> IntArray:
        """Position of each rank's lowering in ``table.lowerings``."""
        if self._index is not None:
            return self._index
        assert self._runs is not None
        return np.repeat([each[2] for each in self._runs], [each[1] - each[0] for each in self._runs])

    def of(self, rank: int) -> Lowering:
        """The kernels one rank launches."""
        return self.table.lowerings[int(self.index[rank])]

    @property
    def distinct(self) -> list[int]:
        """Positions of the lowerings that any rank has."""
        if self._distinct is None:
            every = [run[2] for run in self._runs] if self._runs is not None else self.index.tolist()
            self._distinct = list(dict.fromkeys(every))
        return self._distinct

    def gather(self, per_lowering: IntArray) -> IntArray | int:
        """A column from one value per lowering; a single number where all ranks agree."""
        if self._runs is None:
            return int(per_lowering[0]) if len(per_lowering) == 1 else per_lowering[self._index]
        if len(self._runs) == 1:
            return int(per_lowering[self._runs[0][2]])
        column = np.empty(self._runs[-1][1], dtype=per_lowering.dtype)
        for start, stop, lowering in self._runs:
            column[start:stop] = per_lowering[lowering]
        return column

    def moved(self, source: IntArray) -> LoweringColumn:
        """What each rank's source launched; nothing where that is the rank itself."""
        nothing = self.table.add(NOTHING)
        index = np.where(source == np.arange(len(source)), nothing, self.index[source])
        return LoweringColumn(self.table, index)

    @property
    def pairs(self) -> IntArray | int:
        """Attended (query, key) pairs of each rank, per head and batch row."""
        return self.gather(self.table.pairs)

    @property
    def total_pairs(self) -> int:
        """Attended pairs of all ranks together, per head and batch row."""
        if self._runs is None:
            return int(self.table.pairs[self._index].sum())
        pairs = self.table.pairs
        return sum([(stop - start) * int(pairs[lowering]) for start, stop, lowering in self._runs])

    @property
    def active(self) -> NDArray[np.bool_] | None:
        """Ranks with anything to compute; None where that is all of them."""
        if not self.table.has_empty:
            return None
        active = np.broadcast_to(np.asarray(self.pairs), len(self.index)) > 0
        return None if bool(active.all()) else active


class LoweringSet:
    """Distinct lowerings, with their sizes as arrays."""

    def __init__(self) -> None:
        self.lowerings: list[Lowering] = []
        self._index_of_lowering: dict[Lowering, int] = {}

    def add(self, lowering: Lowering) -> int:
        """Index of a lowering, entered if it is new."""
        index = self._index_of_lowering.setdefault(lowering, len(self.lowerings))
        if index == len(self.lowerings):
            self.lowerings.append(lowering)
            for name in ("pairs", "_rows", "_columns", "launches", "has_empty"):
                self.__dict__.pop(name, None)
        return index

    @cached_property
    def pairs(self) -> IntArray:
        """Attended pairs of each distinct lowering."""
        return np.array([lowering.pairs for lowering in self.lowerings])

    def covered(self, side: str) -> IntArray:
        """Query rows ("q") or keys ("k") that each distinct lowering's kernels touch."""
        return self._rows if side == "q" else self._columns

    @cached_property
    def _rows(self) -> IntArray:
        return np.array([len_of_union(_slices(lowering, "q")) for lowering in self.lowerings])

    @cached_property
    def _columns(self) -> IntArray:
        return np.array([len_of_union(_slices(lowering, "k")) for lowering in self.lowerings])

    @cached_property
    def launches(self) -> IntArray:
        """Kernel launches of each distinct lowering."""
        return np.array([len(lowering.calls) for lowering in self.lowerings])

    @cached_property
    def has_empty(self) -> bool:
        """Whether some lowering computes nothing."""
        return any(not lowering.calls for lowering in self.lowerings)


def column_of(lowerings: Sequence[Lowering]) -> LoweringColumn:
    """A column from one given lowering per rank (an operation with a mask of its own per rank, as APB's)."""
    distinct = LoweringSet()
    return LoweringColumn(distinct, np.array([distinct.add(lowering) for lowering in lowerings]))


def _slices(lowering: Lowering, side: str) -> list[tuple[int, int]]:
    start, stop = f"{side}_start", f"{side}_stop"
    return [(getattr(s, start), getattr(s, stop)) for call in lowering.calls for s in call.segments]


def len_of_union(slices: list[tuple[int, int]]) -> int:
    """Length of the union of half-open slices.

    >>> len_of_union([(0, 4), (2, 6), (8, 9)])
    7
    """
    total, reach = 0, -1
    for start, stop in sorted(slices):
        total += max(0, stop - max(start, reach))
        reach = max(reach, stop)
    return total

"""Which kernels every rank launches in a step, for all ranks at once.

What rank r computes in a step depends on whose query part q and whose key part k it holds. `LoweringTable` maps
(q, k) to one of a few distinct lowerings; a step's `LoweringColumn` is an index per rank into that list, so that
costing and pair counting work once per distinct lowering, not once per rank and step.

Fast path, for masks that are one band ``lo <= q - k <= hi`` and partitions of equal chunks. Two chunks of n tokens and
stride s whose starts differ by D = q0 - k0 leave exactly the local band

    ceil((lo - D) / s) <= i - j <= floor((hi - D) / s),      clipped to [-(n-1), n-1],

so their relation depends on D alone. All D that occur are classified once; a rank's step is then the tuple of the
classes of its chunk pairs, looked up in a table. Masks with blocks (documents) go through a dictionary of (q, k).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cost_models.masks import Lowering, Mask, lower
from simulator.program.partition import Layout, Partition

IntArray = NDArray[np.int64]
MAX_CLASS_TUPLES = 1 << 16
"""Largest look-up table of chunk-class tuples; beyond it the dictionary is used."""


@dataclass(frozen=True, slots=True, eq=False)
class LoweringColumn:
    """A lowering per rank: ``table.lowerings[index[r]]``."""

    table: LoweringSet
    index: IntArray

    def of(self, rank: int) -> Lowering:
        """The kernels one rank launches."""
        return self.table.lowerings[int(self.index[rank])]

    def gather(self, per_lowering: IntArray) -> IntArray | int:
        """A column from one value per lowering; a single number where all ranks agree."""
        if len(per_lowering) == 1:
            return int(per_lowering[0])
        return per_lowering.take(self.index)

    @property
    def pairs(self) -> IntArray | int:
        """Attended (query, key) pairs of each rank, per head and batch row."""
        return self.gather(self.table.pairs)

    @property
    def active(self) -> NDArray[np.bool_] | None:
        """Ranks with anything to compute; None where that is all of them."""
        active = self.table.pairs.take(self.index) > 0 if self.table.has_empty else None
        return None if active is None or bool(active.all()) else active


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
            for name in ("pairs", "rows", "columns", "launches", "has_empty"):
                self.__dict__.pop(name, None)
        return index

    @cached_property
    def pairs(self) -> IntArray:
        """Attended pairs of each distinct lowering."""
        return np.array([lowering.pairs for lowering in self.lowerings])

    @cached_property
    def rows(self) -> IntArray:
        """Query rows that each distinct lowering's kernels write."""
        return np.array([len_of_union(_slices(lowering, "q")) for lowering in self.lowerings])

    @cached_property
    def columns(self) -> IntArray:
        """Keys that each distinct lowering's kernels read."""
        return np.array([len_of_union(_slices(lowering, "k")) for lowering in self.lowerings])

    @cached_property
    def launches(self) -> IntArray:
        """Kernel launches of each distinct lowering."""
        return np.array([len(lowering.calls) for lowering in self.lowerings])

    @cached_property
    def has_empty(self) -> bool:
        """Whether some lowering computes nothing."""
        return any(not lowering.calls for lowering in self.lowerings)


class LoweringTable(LoweringSet):
    """The distinct lowerings of one mask over two partitions."""

    def __init__(self, mask: Mask, seq_len: int, queries: Partition, keys: Partition) -> None:
        super().__init__()
        self._mask, self._seq_len = mask, seq_len
        self._queries, self._keys = queries, keys
        self._index_of_pair: dict[tuple[int, int], int] = {}
        self._classes = _ChunkClasses.build(mask, seq_len, queries, keys)

    def column(self, queries: Layout, keys: Layout) -> LoweringColumn:
        """Lowerings for the parts that the ranks hold in these layouts."""
        if self._classes is None:
            pairs = zip(queries.owner.tolist(), keys.owner.tolist(), strict=True)
            return LoweringColumn(self, np.array([self._lower_pair(q, k) for q, k in pairs]))
        code = self._classes.codes(queries.owner, keys.owner)
        index = self._classes.lookup.take(code)
        if index.min() < 0:
            for rank in np.flatnonzero(index < 0):
                if self._classes.lookup[code[rank]] < 0:
                    pair = int(queries.owner[rank]), int(keys.owner[rank])
                    self._classes.lookup[code[rank]] = self._lower_pair(*pair)
            index = self._classes.lookup.take(code)
        return LoweringColumn(self, index)

    def _lower_pair(self, query_part: int, key_part: int) -> int:
        key = (query_part, key_part)
        if key not in self._index_of_pair:
            ranges = self._queries.ranges(query_part), self._keys.ranges(key_part)
            self._index_of_pair[key] = self.add(lower(self._mask, *ranges, self._seq_len))
        return self._index_of_pair[key]


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


@dataclass(slots=True)
class _ChunkClasses:
    """Class of every pair of chunks by the difference of their starts (see the module's equations)."""

    query_chunk: tuple[IntArray, ...]
    key_chunk: tuple[IntArray, ...]
    class_of: IntArray
    classes: int
    lookup: IntArray

    @staticmethod
    def build(mask: Mask, seq_len: int, queries: Partition, keys: Partition) -> _ChunkClasses | None:
        blocks = mask.blocks(seq_len) if mask.translation_invariant else ()
        lengths = np.unique(np.concatenate([_lengths(queries).ravel(), _lengths(keys).ravel()]))
        if len(blocks) != 1 or len(lengths) != 1 or queries.stride != keys.stride:
            return None
        step = int(np.gcd.reduce(np.concatenate([queries.start.ravel(), keys.start.ravel()]))) or 1
        low, high = _extremes(queries, keys)
        difference = np.arange(low // step, high // step + 1)
        class_of = _classify(blocks[0].lo, blocks[0].hi, difference * step, int(lengths[0]), queries.stride)
        classes, cells = int(class_of.max()) + 1, queries.start.shape[1] * keys.start.shape[1]
        if classes**cells > MAX_CLASS_TUPLES:
            return None
        offset = low // step
        return _ChunkClasses(
            tuple(column // step - offset for column in queries.start.T),
            tuple(column // step for column in keys.start.T),
            class_of,
            classes,
            np.full(classes**cells, -1),
        )

    def codes(self, query_owner: IntArray, key_owner: IntArray) -> IntArray:
        """Class tuple of each rank, as one number."""
        code: IntArray | None = None
        key_chunks = [chunk.take(key_owner) for chunk in self.key_chunk]
        for query_chunk in self.query_chunk:
            held = query_chunk.take(query_owner)
            for key_chunk in key_chunks:
                relation = self.class_of.take(held - key_chunk)
                code = relation if code is None else code * self.classes + relation
        assert code is not None
        return code


def _lengths(partition: Partition) -> IntArray:
    return np.asarray((partition.stop - partition.start + partition.stride - 1) // partition.stride)


def _extremes(queries: Partition, keys: Partition) -> tuple[int, int]:
    return int(queries.start.min() - keys.start.max()), int(queries.start.max() - keys.start.min())


def _classify(lo: int | None, hi: int | None, difference: IntArray, length: int, stride: int) -> IntArray:
    """Number the distinct local bands of chunk pairs whose starts differ by ``difference``."""
    reach = length - 1
    low = np.full_like(difference, -reach) if lo is None else -((difference - lo) // stride)
    high = np.full_like(difference, reach) if hi is None else (hi - difference) // stride
    empty = (low > reach) | (high < -reach)
    band = np.stack([np.clip(low, -reach, reach), np.clip(high, -reach, reach)], axis=1)
    band[empty] = (reach + 1, -reach - 1)
    return np.unique(band, axis=0, return_inverse=True)[1].reshape(-1)

"""Which kernels every rank launches in a step, for all ranks at once.

What rank r computes in a step depends on whose query part q and whose key part k it holds. `LoweringTable` maps
(q, k) to one of a few distinct lowerings; a step's `LoweringColumn` is an index per rank into that list, so that
costing and pair counting work once per distinct lowering, not once per rank and step.

Fast path, for masks that are one band ``lo <= q - k <= hi`` and partitions of equal chunks. Two chunks of n tokens and
stride s whose starts differ by D = q0 - k0 leave exactly the local band

    ceil((lo - D) / s) <= i - j <= floor((hi - D) / s),      clipped to [-(n-1), n-1],

so their relation depends on D alone, and there are few distinct ones: its *class*. In all partitions here chunk i of
part r starts at a_i r + b_i with a_i = +a or -a, so D is a function of r_q - r_k, or of r_q + r_k. The classes of all
chunk pairs are thus one number, ``minus[r_q - r_k] + plus[r_q + r_k]``: two look-ups for all ranks at once, and in a
flat ring a few runs of ranks. Masks with blocks (documents) go through a dictionary of (q, k).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cost_models.masks import Lowering, Mask, TokenRange, join_ranges, lower_joined, needed_keys
from simulator.program.partition import Layout, Partition

IntArray = NDArray[np.int64]
MAX_CODES = 1 << 16
"""Largest look-up table of class numbers; beyond it the dictionary is used."""


MANY_RANGES = 16
"""Ranges of a part, from which on their cells are looked up before they are lowered."""

NO_CLASS = -1
"""Stands for the class of two parts of which one has no tokens."""

NOTHING = Lowering((), 0, True)
"""What is launched where no pair is attended."""

Runs = list[tuple[int, int, int]]
"""(start, stop, lowering): ranks start <= r < stop run lowering number ``lowering``."""


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


class LoweringTable(LoweringSet):
    """The distinct lowerings of one mask over two partitions."""

    def __init__(self, mask: Mask, seq_len: int, queries: Partition, keys: Partition) -> None:
        super().__init__()
        self._mask, self._seq_len = mask, seq_len
        self._queries, self._keys = queries, keys
        self._index_of_pair: dict[tuple[int, int], int] = {}
        self._index_of_class: dict[int, int] = {}
        self._index_of_cells: dict[bytes, int] = {}
        self._joined_ranges: dict[tuple[int, int], list[TokenRange]] = {}
        self._needed: dict[int, IntArray] = {}
        self._column_of_shifts: dict[tuple[int, int], LoweringColumn] = {}
        self._parts = [(each.extends or each).parts for each in (queries, keys)]
        self._classes = _ChunkClasses.build(mask, seq_len, queries.extends or queries, keys.extends or keys)

    def column(self, queries: Layout, keys: Layout) -> LoweringColumn:
        """Lowerings for the parts that the ranks hold in these layouts."""
        if self._classes is None:
            pairs = zip(queries.owner.tolist(), keys.owner.tolist(), strict=True)
            return LoweringColumn(self, np.array([self._lower_pair(q, k) for q, k in pairs]))
        if queries.shift is not None and keys.shift is not None:
            shifts = queries.shift, keys.shift
            if shifts not in self._column_of_shifts:
                runs = [(*run[:2], self._lower_class(run, queries, keys)) for run in self._classes.runs(*shifts)]
                self._column_of_shifts[shifts] = LoweringColumn(self, None, runs)
            return self._column_of_shifts[shifts]
        owners = [
            np.minimum(owner, parts - 1) for owner, parts in zip((queries.owner, keys.owner), self._parts, strict=True)
        ]
        code = self._classes.codes(*owners)
        nothing = (owners[0] != queries.owner) | (owners[1] != keys.owner)
        code[nothing] = NO_CLASS
        numbers, first, index = np.unique(code, return_index=True, return_inverse=True)
        examples = zip(first.tolist(), first.tolist(), numbers.tolist(), strict=True)
        lowered = np.array([self._lower_class(example, queries, keys) for example in examples])
        return LoweringColumn(self, lowered[index])

    def _lower_class(self, run: tuple[int, int, int], queries: Layout, keys: Layout) -> int:
        """Lowering of a class, from its first rank."""
        rank, _, code = run
        if code == NO_CLASS:
            return self.add(NOTHING)
        if code not in self._index_of_class:
            self._index_of_class[code] = self._lower_pair(int(queries.owner[rank]), int(keys.owner[rank]))
        return self._index_of_class[code]

    def _lower_pair(self, query_part: int, key_part: int) -> int:
        key = (query_part, key_part)
        if key not in self._index_of_pair:
            apart = self._apart(query_part, key_part)
            self._index_of_pair[key] = self.add(NOTHING) if apart else self._lower_cells(query_part, key_part)
        return self._index_of_pair[key]

    def _lower_cells(self, query_part: int, key_part: int) -> int:
        """Parts of many ranges are compared first: most pairs of parts leave cells that others have left before."""
        cells = self._cells(query_part, key_part)
        if cells is None or cells not in self._index_of_cells:
            ranges = self._joined(self._queries, query_part), self._joined(self._keys, key_part)
            index = self.add(lower_joined(self._mask, *ranges, self._seq_len))
            if cells is None:
                return index
            self._index_of_cells[cells] = index
        return self._index_of_cells[cells]

    def _joined(self, partition: Partition, part: int) -> list[TokenRange]:
        key = id(partition), part
        if key not in self._joined_ranges:
            self._joined_ranges[key] = join_ranges(partition.ranges(part))
        return self._joined_ranges[key]

    def _cells(self, query_part: int, key_part: int) -> bytes | None:
        """What two parts leave of the mask, as a key; None where looking it up takes as long as lowering it."""
        queries, keys, table = self._queries, self._keys, self._mask.block_table(self._seq_len)
        if queries.start.shape[1] < MANY_RANGES or queries.stride != keys.stride or not table.exact:
            return None
        bounds = [(each.start[part], each.stop[part]) for each, part in ((queries, query_part), (keys, key_part))]
        return table.cell_columns(bounds[0], bounds[1], queries.stride).tobytes()

    def _apart(self, query_part: int, key_part: int) -> bool:
        """Whether these queries see none of these keys: under masks with documents most parts do not meet."""
        if self._queries.stride != 1:
            return False
        if query_part not in self._needed:
            needed = needed_keys(self._mask, self._queries.ranges(query_part), self._seq_len)
            self._needed[query_part] = np.array([(each.start, each.stop) for each in needed]).reshape(-1, 2)
        needed_start, needed_stop = self._needed[query_part].T
        start, stop = self._keys.start[key_part], self._keys.stop[key_part]
        first = np.searchsorted(needed_stop, start, side="right")
        last = np.searchsorted(needed_start, stop)
        return bool(((last <= first) | (stop <= start)).all())


@lru_cache(maxsize=128)
def lowering_table(mask: Mask, seq_len: int, queries: Partition, keys: Partition) -> LoweringTable:
    """The table of a mask and two partitions, shared by all schedules that split the same sequence so."""
    return LoweringTable(mask, seq_len, queries, keys)


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
    """Classes of the chunk pairs of two parts, as one number (see the module's equations)."""

    minus: IntArray
    plus: IntArray | None
    parts: int
    edges: tuple[list[int], ...] = field(init=False)

    def __post_init__(self) -> None:
        """Where ``plus`` changes, among its even and among its odd places: there are few such."""
        plus = np.zeros(0, dtype=np.int64) if self.plus is None else self.plus
        self.edges = tuple([(np.flatnonzero(np.diff(half)) + 1).tolist() for half in (plus[0::2], plus[1::2])])

    @staticmethod
    def build(mask: Mask, seq_len: int, queries: Partition, keys: Partition) -> _ChunkClasses | None:
        """None where the fast path does not apply."""
        blocks = mask.blocks(seq_len) if mask.translation_invariant else ()
        lengths = np.unique(np.concatenate([_lengths(queries).ravel(), _lengths(keys).ravel()]))
        q_slopes, k_slopes = _slopes(queries), _slopes(keys)
        if len(blocks) != 1 or len(lengths) != 1 or queries.stride != keys.stride:
            return None
        if q_slopes is None or k_slopes is None or len(set(map(abs, q_slopes + k_slopes))) != 1:
            return None
        parts, band, length = max(queries.parts, keys.parts), (blocks[0].lo, blocks[0].hi), int(lengths[0])
        minus, plus = np.arange(1 - parts, parts), np.arange(2 * parts - 1)
        starts = []
        for i, q_slope in enumerate(q_slopes):
            for j, k_slope in enumerate(k_slopes):
                apart = queries.start[0, i] - keys.start[0, j]
                starts.append((q_slope == k_slope, apart + q_slope * (minus if q_slope == k_slope else plus)))
        class_of, classes = _classify(*band, [start for _, start in starts], length, queries.stride)
        if classes ** len(starts) > MAX_CODES:
            return None
        codes = [np.zeros_like(minus), np.zeros_like(plus)]
        for place, ((same, _), column) in enumerate(zip(starts, class_of, strict=True)):
            codes[0 if same else 1] += column * classes**place
        crossed = any(not same for same, _ in starts)
        return _ChunkClasses(codes[0], codes[1] if crossed else None, parts)

    def codes(self, query_owner: IntArray, key_owner: IntArray) -> IntArray:
        """Class number of each rank."""
        code: IntArray = self.minus.take(query_owner - key_owner + self.parts - 1)
        if self.plus is not None:
            code += self.plus.take(query_owner + key_owner)
        return code

    def runs(self, query_shift: int, key_shift: int) -> Runs:
        """(start, stop, class number) where rank r holds parts (r + shift) mod P."""
        wraps = {0, (-query_shift) % self.parts, (-key_shift) % self.parts}
        edges, runs = [*sorted(wraps), self.parts], []
        for start, stop in pairwise(edges):
            q, k = (start + query_shift) % self.parts, (start + key_shift) % self.parts
            minus = int(self.minus[q - k + self.parts - 1])
            for low, high, plus in self._plus_runs(q + k, stop - start):
                runs.append((start + low, start + high, minus + plus))
        return runs

    def _plus_runs(self, first: int, count: int) -> Runs:
        """Runs of plus[first], plus[first + 2], ..., ``count`` of them."""
        if self.plus is None:
            return [(0, count, 0)]
        place, edges = first // 2, self.edges[first % 2]
        low, high = bisect_right(edges, place), bisect_left(edges, place + count)
        starts = [0, *[edge - place for edge in edges[low:high]], count]
        return [(low, high, int(self.plus[first + 2 * low])) for low, high in pairwise(starts)]


def _lengths(partition: Partition) -> IntArray:
    return np.asarray((partition.stop - partition.start + partition.stride - 1) // partition.stride)


def _slopes(partition: Partition) -> list[int] | None:
    """Distance of a chunk's starts in neighbouring parts, for each chunk; None where one is not constant."""
    if partition.parts == 1:
        return [0] * partition.start.shape[1]
    difference = np.diff(partition.start, axis=0)
    return difference[0].tolist() if bool((difference == difference[0]).all()) else None


def _classify(
    lo: int | None, hi: int | None, differences: list[IntArray], length: int, stride: int
) -> tuple[list[IntArray], int]:
    """Number the distinct local bands of chunk pairs whose starts differ by ``differences``; and how many there are."""
    reach = length - 1
    difference = np.concatenate(differences)
    low = np.full_like(difference, -reach) if lo is None else -((difference - lo) // stride)
    high = np.full_like(difference, reach) if hi is None else (hi - difference) // stride
    band = np.stack([np.clip(low, -reach, reach), np.clip(high, -reach, reach)], axis=1)
    band[(low > reach) | (high < -reach) | (low > high)] = (reach + 1, -reach - 1)
    class_of = np.unique(band, axis=0, return_inverse=True)[1].reshape(-1)
    edges = np.cumsum([len(each) for each in differences])[:-1]
    return np.split(class_of, edges), int(class_of.max()) + 1

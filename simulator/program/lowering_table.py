"""Which kernels a pair of parts leaves: for any mask and partitions, and each distinct lowering worked out once.

A table maps (query part, key part) to one of a few distinct lowerings. Masks that are one band go by the classes of
chunk pairs (`chunk_classes`), all ranks at once; masks with blocks (documents) through a dictionary of (q, k).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cost_models.masks import Mask, TokenRange, join_ranges, lower_joined, needed_keys
from simulator.program.chunk_classes import ChunkClasses, IntArray
from simulator.program.lowered import NOTHING, LoweringColumn, LoweringSet
from simulator.program.partition import Layout, Partition

MANY_RANGES = 16
"""Ranges of a part, from which on their cells are looked up before they are lowered."""

NO_CLASS = -1
"""Stands for the class of two parts of which one has no tokens."""


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
        self._classes = ChunkClasses.build(mask, seq_len, queries.extends or queries, keys.extends or keys)

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

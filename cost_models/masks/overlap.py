"""Which blocks meet which query and key ranges, without looking at all of them.

Sorted by start, the intervals that meet [a, b) lie between the first whose running maximum of stops exceeds a and the
last that starts before b. Applied twice (blocks for each query range, then key ranges for each block found), it leaves
the few (block, query range, key range) triples that can hold pairs: for 100,000 documents over a thousand ranks,
those of one rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, product

import numpy as np

from cost_models.masks.blocks import Block, BlockColumns, count_pairs, count_pairs_array
from cost_models.masks.cells import Cell, build_cell, cell_columns
from cost_models.masks.counting import IntArray
from cost_models.masks.tokens import TokenRange

FEW = 64
"""Up to so many triples, trying all one by one is faster than NumPy."""

EXACT_IN_INT64 = 1 << 30
"""Tokens up to which counts of pairs cannot overflow int64."""


Bounds = tuple[IntArray, IntArray]
"""Starts and stops of ranges."""


class BlockTable:
    """The blocks of a mask, indexed by their query and key intervals.

    Attributes
    ----------
    exact : no count of pairs can overflow int64.

    >>> table = BlockTable((Block(0, 4, 0, 4, lo=0), Block(4, 8, 4, 8, lo=0)))
    >>> table.count_pairs([TokenRange(2, 6)], [TokenRange(0, 8)])
    10
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = tuple(sorted(blocks, key=lambda block: (block.q_start, block.k_start)))
        self._columns = BlockColumns.of(self.blocks)
        self._rows = _Intervals(self._columns.q_start, self._columns.q_stop)
        self.exact = max((max(block.q_stop, block.k_stop) for block in blocks), default=0) <= EXACT_IN_INT64

    @property
    def area(self) -> int:
        """Pairs of all blocks."""
        if not self.exact:
            return sum(block.area for block in self.blocks)
        c = self._columns
        return int(count_pairs_array(c, c.q_start, c.q_stop, c.k_start, c.k_stop).sum())

    def count_pairs(self, q_ranges: Sequence[TokenRange], k_ranges: Sequence[TokenRange]) -> int:
        """Pairs with a query in ``q_ranges`` and a key in ``k_ranges``."""
        block, q, k = self._triples(q_ranges, k_ranges)
        strides = {tokens.stride for tokens in (*q_ranges, *k_ranges)}
        if len(block) > FEW and len(strides) == 1 and self.exact:
            (q_start, q_stop), (k_start, k_stop) = _bounds(q_ranges), _bounds(k_ranges)
            bounds = q_start[q], q_stop[q], k_start[k], k_stop[k]
            return int(count_pairs_array(self._columns.take(block), *bounds, strides.pop()).sum())
        triples = zip(block.tolist(), q.tolist(), k.tolist(), strict=True)
        return sum(count_pairs(self.blocks[b], q_ranges[i], k_ranges[j]) for b, i, j in triples)

    def meetings(self, q_ranges: Sequence[TokenRange], k_ranges: Sequence[TokenRange]) -> list[tuple[Block, int, int]]:
        """(block, index of query range, index of key range) wherever the three may share pairs."""
        if len(self.blocks) * len(q_ranges) * len(k_ranges) <= FEW:
            return list(product(self.blocks, range(len(q_ranges)), range(len(k_ranges))))
        block, q, k = self._triples(q_ranges, k_ranges)
        return [(self.blocks[b], i, j) for b, i, j in zip(block.tolist(), q.tolist(), k.tolist(), strict=True)]

    def cells(self, q_ranges: Sequence[TokenRange], k_ranges: Sequence[TokenRange]) -> list[Cell]:
        """What each block leaves between each two ranges, on positions in their concatenations (`cells`)."""
        strides = {tokens.stride for tokens in (*q_ranges, *k_ranges)}
        if len(self.blocks) * len(q_ranges) * len(k_ranges) > FEW and len(strides) == 1 and self.exact:
            columns = self.cell_columns(_bounds(q_ranges), _bounds(k_ranges), strides.pop())
            return [Cell(*each) for each in columns.T.tolist()]
        q_offset, k_offset = (list(accumulate(map(len, ranges), initial=0)) for ranges in (q_ranges, k_ranges))
        found = self.meetings(q_ranges, k_ranges)
        cells = [build_cell(block, q_ranges[i], k_ranges[j], q_offset[i], k_offset[j]) for block, i, j in found]
        return [cell for cell in cells if cell]

    def cell_columns(self, queries: Bounds, keys: Bounds, stride: int) -> IntArray:
        """`cells` as an array, for ranges of one stride given by their starts and stops (where ``exact``)."""
        block, q, k = self._meeting(queries, keys)
        rows, columns = (np.array((start, stop, _offsets(start, stop, stride))) for start, stop in (queries, keys))
        return cell_columns(self._columns.take(block), rows[:, q], columns[:, k], stride)

    def _triples(
        self, q_ranges: Sequence[TokenRange], k_ranges: Sequence[TokenRange]
    ) -> tuple[IntArray, IntArray, IntArray]:
        return self._meeting(_bounds(q_ranges), _bounds(k_ranges))

    def _meeting(self, queries: Bounds, keys: Bounds) -> tuple[IntArray, IntArray, IntArray]:
        q, block = self._rows.meeting(*queries)
        start, stop = keys
        order = np.argsort(start, kind="stable")
        of_pair, k = _Intervals(start[order], stop[order]).meeting(
            self._columns.k_start[block], self._columns.k_stop[block]
        )
        return block[of_pair], q[of_pair], order[k]


class _Intervals:
    """Half-open intervals sorted by start."""

    def __init__(self, start: IntArray, stop: IntArray) -> None:
        self._start = start
        self._reach = np.maximum.accumulate(stop)

    def meeting(self, start: IntArray, stop: IntArray) -> tuple[IntArray, IntArray]:
        """Pairs (index of a queried interval, index of an own one) that may overlap."""
        first = np.searchsorted(self._reach, start, side="right")
        count = np.maximum(np.searchsorted(self._start, stop) - first, 0)
        queried = np.repeat(np.arange(len(first)), count)
        before = np.cumsum(count) - count
        return queried, np.arange(len(queried)) + (first - before)[queried]


def _offsets(start: IntArray, stop: IntArray, stride: int) -> IntArray:
    """Position of each range's first token in their concatenation."""
    length = np.maximum(-((start - stop) // stride), 0)
    return np.asarray(np.cumsum(length) - length)


def _bounds(ranges: Sequence[TokenRange]) -> Bounds:
    bounds = np.array([(tokens.start, tokens.stop) for tokens in ranges], dtype=np.int64).reshape(-1, 2)
    return bounds[:, 0], bounds[:, 1]

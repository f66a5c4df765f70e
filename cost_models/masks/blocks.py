"""A banded block of (query, key) pairs, the piece every mask is made of, and exact counts of its pairs.

    block = {(q, k) : q_start <= q < q_stop,  k_start <= k < k_stop,  lo <= q - k <= hi}

Full attention is one block without a band, causal one with lo = 0, a document one small causal block, and so on.
Restricted to a query range of first token a and a key range of first token b, both of stride s, a block is a grid with
the band ceil((lo - a + b) / s) <= i - j <= floor((hi - a + b) / s) on local positions: counted in closed form
(`counting`), whatever the sequence length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cost_models.masks.counting import (
    IntArray,
    count_in_band,
    count_in_band_array,
    count_in_strided_band,
)
from cost_models.masks.tokens import TokenRange

UNBOUNDED = 1 << 40
"""Stands for a missing bound of a band where numbers are needed; beyond any token distance."""


@dataclass(frozen=True, slots=True)
class Block:
    """All pairs of a rectangle with ``lo <= q - k <= hi`` (``None`` = unbounded).

    >>> Block(0, 4, 0, 4, lo=0).area
    10
    """

    q_start: int
    q_stop: int
    k_start: int
    k_stop: int
    lo: int | None = None
    hi: int | None = None

    @property
    def band(self) -> tuple[int, int]:
        """Both bounds as numbers."""
        return -UNBOUNDED if self.lo is None else self.lo, UNBOUNDED if self.hi is None else self.hi

    @property
    def area(self) -> int:
        """Number of pairs."""
        return count_pairs(self, TokenRange(self.q_start, self.q_stop), TokenRange(self.k_start, self.k_stop))


def clip_range(tokens: TokenRange, start: int, stop: int) -> tuple[int, int, int]:
    """The part of a range in [start, stop): tokens skipped, first token kept, tokens kept.

    >>> clip_range(TokenRange(1, 20, 4), 4, 10)
    (1, 5, 2)
    """
    skipped = max(0, -((tokens.start - start) // tokens.stride))
    first = tokens.start + skipped * tokens.stride
    kept = max(0, -((first - min(stop, tokens.stop)) // tokens.stride))
    return skipped, first, kept


def local_band(block: Block, first_q: int, first_k: int, stride: int) -> tuple[int, int]:
    """The block's band on positions i, j of tokens ``first_q + i stride`` and ``first_k + j stride``."""
    lo, hi = block.band
    ahead = first_q - first_k
    return -((ahead - lo) // stride), (hi - ahead) // stride


def count_pairs(block: Block, q: TokenRange, k: TokenRange) -> int:
    """Pairs of a block whose query is in ``q`` and whose key is in ``k``, in O(1), or O(log) for unequal strides.

    >>> causal = Block(0, 10**7, 0, 10**7, lo=0)
    >>> count_pairs(causal, TokenRange(3, 10**7, 8), TokenRange(5, 10**7, 8))
    781249375000
    """
    _, first_q, rows = clip_range(q, block.q_start, block.q_stop)
    _, first_k, columns = clip_range(k, block.k_start, block.k_stop)
    if not rows or not columns:
        return 0
    if q.stride == k.stride:
        return count_in_band(rows, columns, *local_band(block, first_q, first_k, q.stride))
    lo, hi = block.band
    ahead = first_q - first_k
    return count_in_strided_band(rows, columns, q.stride, k.stride, lo - ahead, hi - ahead)


def count_pairs_array(
    blocks: Block | BlockColumns,
    q_start: IntArray,
    q_stop: IntArray,
    k_start: IntArray,
    k_stop: IntArray,
    stride: int | IntArray = 1,
) -> IntArray:
    """Pairs for arrays of query and key ranges of one stride, element by element (all arguments broadcast).

    Parameters
    ----------
    blocks : one block for all elements, or columns with one block per element.
    q_start, q_stop, k_start, k_stop : bounds of the ranges, in tokens, up to 2^30.
    stride : distance of neighbouring tokens, in queries and keys alike.

    >>> causal = Block(0, 16, 0, 16, lo=0)
    >>> count_pairs_array(causal, np.array([0, 8]), np.array([8, 16]), np.array([0, 0]), np.array([8, 8])).tolist()
    [36, 64]
    """
    columns = BlockColumns.of((blocks,)) if isinstance(blocks, Block) else blocks
    step = np.asarray(stride, dtype=np.int64)
    first_q, rows = clip_array(q_start, q_stop, columns.q_start, columns.q_stop, step)
    first_k, width = clip_array(k_start, k_stop, columns.k_start, columns.k_stop, step)
    ahead = first_q - first_k
    return count_in_band_array(rows, width, -((ahead - columns.lo) // step), (columns.hi - ahead) // step)


def clip_array(
    start: IntArray, stop: IntArray, low: IntArray, high: IntArray, stride: IntArray | int
) -> tuple[IntArray, IntArray]:
    """First token kept and tokens kept of each range in its [low, high)."""
    first = start + np.maximum(-((start - low) // stride), 0) * stride
    return first, np.maximum(-((first - np.minimum(stop, high)) // stride), 0)


@dataclass(frozen=True, slots=True, eq=False)
class BlockColumns:
    """Blocks as columns, one array per bound."""

    q_start: IntArray
    q_stop: IntArray
    k_start: IntArray
    k_stop: IntArray
    lo: IntArray
    hi: IntArray

    @staticmethod
    def of(blocks: tuple[Block, ...]) -> BlockColumns:
        """Columns of some blocks."""
        rows = [(b.q_start, b.q_stop, b.k_start, b.k_stop, *b.band) for b in blocks]
        return BlockColumns(*np.array(rows, dtype=np.int64).reshape(-1, 6).T)

    def take(self, index: IntArray) -> BlockColumns:
        """The blocks at some positions."""
        bounds = (self.q_start, self.q_stop, self.k_start, self.k_stop, self.lo, self.hi)
        return BlockColumns(*(bound[index] for bound in bounds))

"""Masks given block by block, with key axes of their own: what an approximate schedule computes on one host.

APB (arXiv 2502.12085) gives a host's queries the rows [anchor | local] and its keys the columns
[passing | anchor | local]. Row i sees column j of each part as follows (its mask M', section 3.4 of the paper):

    anchor row:  anchor keys j <= i
    local row:   every passing key, every anchor key, local keys j <= i
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cost_models.masks.blocks import Block
from cost_models.masks.counting import IntArray
from cost_models.masks.mask import BoolArray, Mask
from cost_models.masks.tokens import TokenRange


@dataclass(frozen=True)
class BlockMask(Mask):
    """Disjoint blocks over rows and columns that are numbered from 0, each on its own axis.

    Parameters
    ----------
    explicit_blocks : the blocks; they must not overlap.
    rows, columns : lengths of the query and the key axis.
    label : what ``str()`` says.
    """

    name: ClassVar[str] = "blocks"
    explicit_blocks: tuple[Block, ...]
    rows: int
    columns: int
    label: str

    @property
    def q_ranges(self) -> tuple[TokenRange, ...]:
        """All rows."""
        return (TokenRange(0, self.rows),)

    @property
    def k_ranges(self) -> tuple[TokenRange, ...]:
        """All columns."""
        return (TokenRange(0, self.columns),)

    def blocks(self, seq_len: int) -> tuple[Block, ...]:
        """The blocks given, whatever the sequence they were cut from."""
        return self.explicit_blocks

    def allowed(self, q: IntArray, k: IntArray) -> BoolArray:
        """Whether some block holds row ``q`` and column ``k``."""
        held = np.zeros(np.broadcast(q, k).shape, dtype=np.bool_)
        for block in self.explicit_blocks:
            held |= _holds(block, q, k)
        return held

    def __str__(self) -> str:
        return self.label


def _holds(block: Block, q: IntArray, k: IntArray) -> BoolArray:
    lo, hi = block.band
    ahead = np.subtract(q, k)
    in_rows = np.greater_equal(q, block.q_start) & np.less(q, block.q_stop)
    in_columns = np.greater_equal(k, block.k_start) & np.less(k, block.k_stop)
    return np.asarray(in_rows & in_columns & (ahead >= lo) & (ahead <= hi))


def apb_mask(passing: int, anchor: int, local: int) -> BlockMask:
    """APB's mask on one host.

    Parameters
    ----------
    passing, anchor, local : tokens of each part; host 0 has no anchor and nothing passed.

    >>> apb_mask(passing=2, anchor=2, local=3).area(5)
    21
    """
    edge, rows, columns = passing + anchor, anchor + local, passing + anchor + local
    parts = Block(0, anchor, passing, edge, lo=-passing), Block(anchor, rows, 0, columns, lo=-passing)
    blocks = tuple(part for part in parts if part.q_start < part.q_stop)
    return BlockMask(blocks, rows, columns, f"apb:passing={passing},anchor={anchor},local={local}")

"""Block-sparse attention: a grid of tiles, of which each row of tiles keeps those with the highest random scores.

    n tiles a side,  kept per row = max(1, floor(keep n)),  area = sum of the kept tiles' areas (about keep S^2)

Uniform: tiles of ``block`` tokens, the last one shorter. Variable: n = S / ``block`` rows and columns are cut at random
places, each at least 128 tokens (half of ``block`` where that is less) and ``block`` on average. One drawing stands for
all heads. Source: LongCA-bench (arXiv 2510.17896) section 2.1 and its block-sparse benchmarks; ``keep`` is what it
calls sparsity ratio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

import numpy as np

from cost_models.masks.blocks import Block
from cost_models.masks.counting import IntArray
from cost_models.masks.mask import BoolArray, Mask, require_positive
from traces.errors import InputError

MAX_TILES = 1 << 22
"""Largest grid: 256k tokens in tiles of 128. Every kept run of tiles becomes a block."""

LEAST_VARIABLE_TOKENS = 128


@dataclass(frozen=True)
class BlockSparse(Mask):
    """Random tiles, ``keep`` of each row of tiles.

    Parameters
    ----------
    block : tokens of a tile's side, on average where ``variable``.
    keep : share of the tiles that is computed, above 0 and at most 1.
    seed : of the drawing.
    variable : whether tiles differ in size.
    seq_len : the length it is drawn for, which `allowed` needs; `parse_mask` sets it.

    >>> BlockSparse(block=128, keep=0.25).area(1024) / 1024**2
    0.25
    """

    name: ClassVar[str] = "block-sparse"
    block: int = 128
    keep: float = 0.2
    seed: int = 0
    variable: bool = False
    seq_len: int | None = field(default=None, metadata={"option": False})

    def __post_init__(self) -> None:
        require_positive(self, block=self.block)
        if not 0 < self.keep <= 1:
            raise InputError(f"{self.name} mask: keep is no share", got=self.keep, expected="above 0, at most 1")
        if self.seed < 0:
            raise InputError(f"{self.name} mask: seed is negative", got=self.seed)

    def validate(self, seq_len: int) -> None:
        """Refuse a length other than the one it is bound to, and grids too large to draw."""
        super().validate(seq_len)
        if self.seq_len not in (None, seq_len):
            raise InputError(f"{self.name} mask is drawn for another seq_len", got=seq_len, expected=str(self.seq_len))
        side = math.isqrt(MAX_TILES)
        if seq_len > side * self.block:
            raise InputError(
                f"{self.name} mask: too many tiles",
                got=f"{-(-seq_len // self.block)} a side",
                expected=f"at most {side}",
                remedy=f"use block={-(-seq_len // side)} or more",
            )

    def blocks(self, seq_len: int) -> tuple[Block, ...]:
        """One rectangle per run of neighbouring tiles in a row of tiles."""
        self.validate(seq_len)
        rows, columns, kept = _draw(self.block, self.keep, self.seed, self.variable, seq_len)
        edges = np.diff(np.pad(kept, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        row, column = (index.reshape(-1, 2) for index in np.nonzero(edges))
        q_start, q_stop = rows[row[:, 0]].tolist(), rows[row[:, 0] + 1].tolist()
        k_start, k_stop = columns[column].T.tolist()
        return tuple(map(Block, q_start, q_stop, k_start, k_stop))

    def allowed(self, q: IntArray, k: IntArray) -> BoolArray:
        """Whether the tile of (q, k) is kept."""
        if self.seq_len is None:
            remedy = "name it in the mask (seq_len=) or in parse_mask"
            raise InputError(f"{self.name} mask is not bound to a sequence length", remedy=remedy)
        rows, columns, kept = _draw(self.block, self.keep, self.seed, self.variable, self.seq_len)
        return np.asarray(
            kept[np.searchsorted(rows, q, side="right") - 1, np.searchsorted(columns, k, side="right") - 1]
        )


@lru_cache(maxsize=2)
def _draw(block: int, keep: float, seed: int, variable: bool, seq_len: int) -> tuple[IntArray, IntArray, BoolArray]:
    """Edges of the rows of tiles and of the columns, and which tiles are kept."""
    rng = np.random.default_rng(seed)
    if variable:
        rows, columns = _random_edges(rng, block, seq_len), _random_edges(rng, block, seq_len)
    else:
        rows = columns = np.append(np.arange(0, seq_len, block), seq_len)
    side = len(columns) - 1
    kept_per_row = max(1, int(keep * side + 1e-9))
    order = np.argsort(rng.random((len(rows) - 1, side)), axis=1)
    kept = np.zeros(order.shape, dtype=np.bool_)
    np.put_along_axis(kept, order[:, :kept_per_row], True, axis=1)
    return rows, columns, kept


def _random_edges(rng: np.random.Generator, block: int, seq_len: int) -> IntArray:
    """Edges of ``seq_len / block`` intervals: each the least length, and what is left dealt by uniform cuts."""
    intervals, least = max(1, seq_len // block), max(1, min(LEAST_VARIABLE_TOKENS, block // 2))
    cuts = np.sort(rng.integers(0, seq_len - intervals * least + 1, intervals - 1))
    return np.concatenate([[0], cuts + least * np.arange(1, intervals), [seq_len]])

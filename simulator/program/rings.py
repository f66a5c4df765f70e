"""Rings of ranks, in which data circulates: every rank sends to its successor and receives from its predecessor.

P = groups x size x step ranks; rank = (group size + position) step + offset. Ranks of one group and offset are a ring
in order of their positions: size = P is one flat ring, size = L and step = 1 a ring in every node of L ranks, and
step = L with size = P / L rings between nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ring:
    """Rings of ``size`` ranks that lie ``step`` apart, among ``n_ranks``.

    >>> Ring("inter", step=2, size=2, n_ranks=4).to.tolist()
    [2, 3, 0, 1]
    """

    name: str
    step: int
    size: int
    n_ranks: int

    @property
    def lane(self) -> str:
        """The communication lane (one NCCL communicator and stream) of this ring."""
        return f"comm:{self.name}"

    @cached_property
    def to(self) -> IntArray:
        """Rank to which each rank sends."""
        return self._neighbour(1)

    @cached_property
    def source(self) -> IntArray:
        """Rank from which each rank receives."""
        return self._neighbour(-1)

    def _neighbour(self, direction: int) -> IntArray:
        rank = np.arange(self.n_ranks)
        position = rank // self.step % self.size
        return rank + ((position + direction) % self.size - position) * self.step

    def latest_with_next(self, column: IntArray) -> IntArray:
        """max(column, column[to])."""
        grid, result = self._grids(column)
        np.maximum(grid[:, :-1], grid[:, 1:], out=result[:, :-1])
        np.maximum(grid[:, -1], grid[:, 0], out=result[:, -1])
        return result.reshape(-1)

    def latest_with_previous(self, column: IntArray) -> IntArray:
        """max(column, column[source])."""
        grid, result = self._grids(column)
        np.maximum(grid[:, 1:], grid[:, :-1], out=result[:, 1:])
        np.maximum(grid[:, 0], grid[:, -1], out=result[:, 0])
        return result.reshape(-1)

    def _grids(self, column: IntArray) -> tuple[IntArray, IntArray]:
        shape = (-1, self.size, self.step)
        return column.reshape(shape), np.empty(len(column), dtype=np.int64).reshape(shape)

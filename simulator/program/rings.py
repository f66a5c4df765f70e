"""Groups of ranks, and rings in which data circulates: every rank sends to its successor.

P = groups x size x step ranks; rank = (group size + position) step + offset. Ranks of one group and offset are a ring
in order of their positions: size = P is one flat ring, size = L and step = 1 a ring in every node of L ranks, and
step = L with size = P / L rings between nodes. The same ranks, without the order, are a process group of collectives.
A `Matching` is any other set of point-to-point transfers in which a rank sends once and receives once at most.
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
    def position(self) -> IntArray:
        """Each rank's place in its group."""
        return np.arange(self.n_ranks) // self.step % self.size

    @cached_property
    def groups(self) -> IntArray:
        """Number of each rank's group, from 0."""
        rank = np.arange(self.n_ranks)
        return rank // (self.step * self.size) * self.step + rank % self.step

    @cached_property
    def members(self) -> IntArray:
        """Ranks of each group in order of position: [groups, size]."""
        members = np.empty((self.n_ranks // self.size, self.size), dtype=np.int64)
        members[self.groups, self.position] = np.arange(self.n_ranks)
        return members

    @cached_property
    def to(self) -> IntArray:
        """Rank to which each rank sends."""
        return self.neighbour(1)

    @cached_property
    def source(self) -> IntArray:
        """Rank from which each rank receives."""
        return self.neighbour(-1)

    def neighbour(self, distance: int) -> IntArray:
        """The rank so many places on in each rank's ring."""
        position = self.position
        return np.arange(self.n_ranks) + ((position + distance) % self.size - position) * self.step

    def latest_with_next(self, column: IntArray) -> IntArray:
        """max(column, column[to]); of several columns at once where there are more axes before the ranks'."""
        grid, result = self._grids(column)
        np.maximum(grid[:, :-1], grid[:, 1:], out=result[:, :-1])
        np.maximum(grid[:, -1], grid[:, 0], out=result[:, -1])
        return result.reshape(column.shape)

    def latest_with_previous(self, column: IntArray) -> IntArray:
        """max(column, column[source])."""
        grid, result = self._grids(column)
        np.maximum(grid[:, 1:], grid[:, :-1], out=result[:, 1:])
        np.maximum(grid[:, 0], grid[:, -1], out=result[:, 0])
        return result.reshape(column.shape)

    def _grids(self, column: IntArray) -> tuple[IntArray, IntArray]:
        shape = (-1, self.size, self.step)
        return column.reshape(shape), np.empty(column.size, dtype=np.int64).reshape(shape)


@dataclass(frozen=True, eq=False)
class Matching:
    """Transfers between pairs of ranks, as one grouped exchange.

    Parameters
    ----------
    name : of the communicator.
    to : rank to which each rank sends; itself where it sends nothing.

    >>> Matching("help", np.array([2, 1, 2])).source.tolist()
    [0, 1, 0]
    """

    name: str
    to: IntArray

    @property
    def lane(self) -> str:
        """The communication lane."""
        return f"comm:{self.name}"

    @property
    def n_ranks(self) -> int:
        """Number of ranks."""
        return len(self.to)

    @property
    def size(self) -> int:
        """All ranks are one group."""
        return len(self.to)

    @cached_property
    def source(self) -> IntArray:
        """Rank from which each rank receives; itself where it receives nothing."""
        source = np.arange(len(self.to))
        sends = self.to != source
        source[self.to[sends]] = np.flatnonzero(sends)
        return source

    @property
    def active(self) -> NDArray[np.bool_]:
        """Ranks that send or receive."""
        rank = np.arange(len(self.to))
        return np.asarray((self.to != rank) | (self.source != rank))

    def latest_with_next(self, column: IntArray) -> IntArray:
        """max(column, column[to])."""
        return np.maximum(column, column[..., self.to])

    def latest_with_previous(self, column: IntArray) -> IntArray:
        """max(column, column[source])."""
        return np.maximum(column, column[..., self.source])

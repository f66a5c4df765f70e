"""Ranks as a grid of parallel axes, placed on the machine in a stated order.

    rank = sum over axes of coordinate x stride,   the first axis of the order has stride 1

so that the groups of the first axis lie closest together: ``tp-cp-dp-pp`` puts tensor parallel groups inside nodes and
pipeline stages far apart (Narayanan et al. 2021, arXiv 2104.04473, section 3.3). Ranks that differ in context and data
coordinate only hold the same parameters, and different tokens: gradients are summed over both axes together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from traces.errors import InputError

IntArray = NDArray[np.int64]
AXES = ("tp", "cp", "dp", "pp")


@dataclass(frozen=True)
class Grid:
    """Sizes of the parallel axes.

    Parameters
    ----------
    tp, cp, dp, pp : tensor, context, data and pipeline parallel ranks.
    order : the axes, innermost first.

    >>> grid = Grid(tp=2, cp=2, dp=1, pp=2, order="tp-cp-dp-pp")
    >>> grid.n_ranks, grid.groups("cp").tolist(), grid.coordinate("pp").tolist()
    (8, [0, 1, 0, 1, 2, 3, 2, 3], [0, 0, 0, 0, 1, 1, 1, 1])
    """

    tp: int = 1
    cp: int = 1
    dp: int = 1
    pp: int = 1
    order: str = "-".join(AXES)

    def __post_init__(self) -> None:
        if sorted(self.order.split("-")) != sorted(AXES):
            raise InputError("placement is not an order of the parallel axes", got=self.order, expected="-".join(AXES))
        for axis in AXES:
            if self.size(axis) < 1:
                raise InputError(f"{axis} is not a positive whole number", got=self.size(axis))

    @property
    def n_ranks(self) -> int:
        """Ranks in all."""
        return self.tp * self.cp * self.dp * self.pp

    def size(self, *axes: str) -> int:
        """Ranks along some axes together."""
        return math.prod(int(getattr(self, axis)) for axis in axes)

    def stride(self, axis: str) -> int:
        """Distance of neighbouring ranks along an axis."""
        inner = self.order.split("-")
        return self.size(*inner[: inner.index(axis)])

    def coordinate(self, *axes: str) -> IntArray:
        """Each rank's place along some axes together, the first axis fastest."""
        place, factor = np.zeros(self.n_ranks, dtype=np.int64), 1
        for axis in axes:
            place += np.arange(self.n_ranks) // self.stride(axis) % self.size(axis) * factor
            factor *= self.size(axis)
        return place

    def position(self, *axes: str) -> IntArray:
        """Each rank's place in its group, ranks in ascending order, as collectives number them."""
        return self.coordinate(*sorted(axes, key=self.stride))

    def groups(self, *axes: str) -> IntArray:
        """Number of each rank's group: ranks of a group differ along these axes only."""
        return self.coordinate(*[axis for axis in AXES if axis not in axes])

    @cached_property
    def context(self) -> IntArray:
        """Each rank's place in its context parallel group."""
        return self.coordinate("cp")

    def context_per_node(self, ranks_per_node: int) -> int:
        """Neighbours of a context parallel group on one node, where nodes hold equally many of every group; else 1."""
        return _context_per_node(self, ranks_per_node)


@lru_cache(maxsize=1024)
def _context_per_node(grid: Grid, ranks_per_node: int) -> int:
    node = np.arange(grid.n_ranks) // ranks_per_node
    members = np.argsort(grid.groups("cp"), kind="stable").reshape(-1, grid.cp)
    nodes = node[members]
    near = int(np.argmax(np.append(nodes[0] != nodes[0, 0], True)))
    even = grid.cp % near == 0 and bool((np.diff(nodes.reshape(-1, near), axis=1) == 0).all())
    return near if even else 1

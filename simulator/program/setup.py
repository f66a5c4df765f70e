"""What a schedule is recorded for: the workload, and how many ranks sit on how many nodes."""

from __future__ import annotations

from dataclasses import dataclass

from cost_models.workload import AttentionWorkload
from simulator.program.rings import Ring
from traces.errors import InputError


@dataclass(frozen=True)
class Ranks:
    """Ranks of a Program whose workload is not known, as one made from a trace."""

    n_ranks: int
    ranks_per_node: int


@dataclass(frozen=True)
class Setup:
    """A workload on ``n_ranks`` ranks, ``ranks_per_node`` of them on each node, numbered node by node.

    >>> from cost_models.masks import parse_mask
    >>> setup = Setup(AttentionWorkload(1, 64, 4, 4, 16, 16, "bf16", parse_mask("causal", 64)), 8, 4)
    >>> setup.nodes, setup.inner_ring().to.tolist(), setup.outer_ring().to.tolist()
    (2, [1, 2, 3, 0, 5, 6, 7, 4], [4, 5, 6, 7, 0, 1, 2, 3])
    """

    workload: AttentionWorkload
    n_ranks: int
    ranks_per_node: int

    def __post_init__(self) -> None:
        if self.n_ranks < 1 or self.n_ranks % self.ranks_per_node:
            raise InputError(
                "ranks do not fill the nodes",
                got=f"{self.n_ranks} ranks, {self.ranks_per_node} a node",
                remedy="use a multiple of the ranks per node",
            )

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self.n_ranks // self.ranks_per_node

    def flat_ring(self) -> Ring:
        """All ranks in one ring, in rank order."""
        return self.ring("ring", 1, self.n_ranks)

    def rings(self, *, double: bool) -> tuple[Ring, Ring]:
        """An inner and an outer ring: those of a double ring, or the flat one inside a ring of one."""
        if double:
            return self.inner_ring(), self.outer_ring()
        return self.flat_ring(), self.ring("inter", self.n_ranks, 1)

    def inner_ring(self) -> Ring:
        """One ring inside each node."""
        return self.ring("intra", 1, self.ranks_per_node)

    def outer_ring(self) -> Ring:
        """Ranks of the same local index on all nodes, in a ring each."""
        return self.ring("inter", self.ranks_per_node, self.nodes)

    def all_ranks(self) -> Ring:
        """All ranks as one process group."""
        return self.ring("group", 1, self.n_ranks)

    def ring(self, name: str, step: int, size: int) -> Ring:
        """Groups of ``size`` ranks that lie ``step`` apart."""
        return Ring(name, step, size, self.n_ranks)

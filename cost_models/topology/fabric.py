"""The network between nodes: leaf switches and a spine, both without blocking inside.

Rail-optimised: port k of every node is wired to leaf k, as in a DGX SuperPOD (NVIDIA's reference architecture: each of
the eight compute rails has its own leaf switches). Fat tree: all ports of ``nodes_per_leaf`` nodes are on one leaf; 4
nodes of 8 ports fill half of a 64-port leaf, the other half goes up. A leaf's link to the spine carries the sum of its
ports divided by ``oversubscription``.

With several ``spines`` that capacity is split evenly over as many links, and each pair of ranks takes one of them for
all its data, chosen by a hash with a seed (ECMP: equal-cost multi-path), so that flows collide as they do where
switches do not look at load; a collective waits for its most crowded link. One spine stands for a network that spreads
perfectly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traces.errors import InputError

IntArray = NDArray[np.int64]

FABRICS = ("rail", "fat-tree")


@dataclass(frozen=True)
class Fabric:
    """Shape of the network.

    >>> Fabric("rail").leaf_of(node=5, rail=2), Fabric("fat-tree").leaf_of(node=5, rail=2)
    (2, 1)
    """

    kind: str = "rail"
    oversubscription: float = 1.0
    nodes_per_leaf: int = 4
    spines: int = 1
    ecmp_seed: int = 0
    lost_uplinks: frozenset[tuple[int, int]] = frozenset()

    def __post_init__(self) -> None:
        if self.kind not in FABRICS:
            raise InputError("unknown fabric", got=self.kind, expected="one of " + ", ".join(FABRICS))
        if not 1.0 <= self.oversubscription < float("inf"):
            raise InputError("oversubscription is out of range", got=self.oversubscription, expected="at least 1")
        if self.nodes_per_leaf < 1:
            raise InputError("nodes-per-leaf is not positive", got=self.nodes_per_leaf)
        if not 1 <= self.spines <= 1024:
            raise InputError("spines is out of range", got=self.spines, expected="1 to 1024")

    def leaf_of(self, node: int, rail: int) -> int:
        """Leaf switch to which a node's port of that rail is wired."""
        return rail if self.kind == "rail" else node // self.nodes_per_leaf

    def spine_of(self, src: IntArray, dst: IntArray, leaf: IntArray, other: IntArray) -> IntArray:
        """The spine that data from ranks ``src`` on ``leaf`` take to ranks ``dst`` on ``other``.

        The next one that both leaves have a link to, where the hash's choice has lost one.

        >>> ranks = np.arange(16)
        >>> Fabric(spines=4, ecmp_seed=1).spine_of(ranks, ranks + 16, ranks * 0, ranks * 0 + 1).tolist()
        [1, 0, 1, 1, 1, 3, 3, 3, 1, 3, 0, 0, 0, 0, 0, 3]
        """
        spine = _hash(self.ecmp_seed, src, dst) % self.spines
        if self.lost_uplinks:
            leaves = 1 + max(int(leaf.max()), int(other.max()), *(each for each, _ in self.lost_uplinks))
            lost = np.zeros((leaves, self.spines), dtype=bool)
            lost[tuple(np.array(sorted(self.lost_uplinks)).T)] = True
            for _ in range(self.spines):
                spine = np.where(lost[leaf, spine] | lost[other, spine], (spine + 1) % self.spines, spine)
        return spine


def _hash(seed: int, src: IntArray, dst: IntArray) -> IntArray:
    """A number for each pair, without pattern (splitmix64; Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        value = src.astype(np.uint64) * np.uint64(1 << 32) + dst.astype(np.uint64)
        value += np.uint64(seed % 2**32 + 1) * np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((value ^ (value >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)

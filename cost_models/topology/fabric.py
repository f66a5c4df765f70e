"""The network between nodes: leaf switches and one spine, both without blocking inside.

Rail-optimised: port k of every node is wired to leaf k, as in a DGX SuperPOD (NVIDIA's reference architecture: each of
the eight compute rails has its own leaf switches). Fat tree: all ports of ``nodes_per_leaf`` nodes are on one leaf; 4
nodes of 8 ports fill half of a 64-port leaf, the other half goes up. A leaf's link to the spine carries the sum of its
ports divided by ``oversubscription``.
"""

from __future__ import annotations

from dataclasses import dataclass

from traces.errors import InputError

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

    def __post_init__(self) -> None:
        if self.kind not in FABRICS:
            raise InputError("unknown fabric", got=self.kind, expected="one of " + ", ".join(FABRICS))
        if not 1.0 <= self.oversubscription < float("inf"):
            raise InputError("oversubscription is out of range", got=self.oversubscription, expected="at least 1")
        if self.nodes_per_leaf < 1:
            raise InputError("nodes-per-leaf is not positive", got=self.nodes_per_leaf)

    def leaf_of(self, node: int, rail: int) -> int:
        """Leaf switch to which a node's port of that rail is wired."""
        return rail if self.kind == "rail" else node // self.nodes_per_leaf

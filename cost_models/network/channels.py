"""Channels of a node: what NCCL's search finds, and what each may carry."""

from __future__ import annotations

from dataclasses import dataclass

from cost_models.topology.paths import PathType

RING, BALANCED_TREE, TREE = "ring", "balanced tree", "tree"


@dataclass(frozen=True)
class Channel:
    """One channel: GPUs (local ranks) in order, and the ports by which it comes in and goes out (-1 inside a node)."""

    gpus: tuple[int, ...]
    net_in: int = -1
    net_out: int = -1


@dataclass(frozen=True)
class Graph:
    """Channels of one pattern, and what each may carry.

    Attributes
    ----------
    intra_gb_per_s, inter_gb_per_s : of each channel, inside a node and between nodes.
    type_intra, type_inter : worst paths used.
    same_channels : all channels visit the GPUs in one order.
    """

    pattern: str
    channels: tuple[Channel, ...] = ()
    intra_gb_per_s: float = 0.0
    inter_gb_per_s: float = 0.0
    type_intra: PathType = PathType.LOC
    type_inter: PathType = PathType.LOC
    same_channels: bool = True
    cross_nic: int = 0
    hops: int = 0

    @property
    def bus_gb_per_s(self) -> float:
        """What all channels carry inside a node."""
        return len(self.channels) * self.intra_gb_per_s

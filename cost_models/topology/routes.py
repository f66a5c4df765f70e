"""A route: the links that one rank's data cross to reach another rank, and what the slowest of them allows."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from cost_models.topology.paths import PathType


@dataclass(frozen=True, slots=True)
class Route:
    """Way from one rank to another.

    Attributes
    ----------
    links : indices into ``ClusterTopology.links``, in order; empty from a rank to itself.
    path_type : NCCL's path type of the pair.
    kind : ``local`` (same rank), ``nvlink``, ``c2c``, ``pcie``, ``shm``, ``net`` or ``socket``.
    latency_s : sum over the links.
    bytes_per_s : capacity of the slowest link, host memory left aside.
    bottleneck : index of that link (the first of equals), -1 if there is none.
    wire_bytes_per_s : of the slowest link that is not the host's, of which the transport reaches a share.
    host_bytes_per_s : of the slowest between NUMA nodes or into their memory; infinite where there is none.
    """

    links: tuple[int, ...]
    path_type: PathType
    kind: str
    latency_s: float
    bytes_per_s: float
    bottleneck: int
    wire_bytes_per_s: float
    host_bytes_per_s: float = inf

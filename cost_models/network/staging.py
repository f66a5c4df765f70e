"""What rings through host memory reach: bounds by the links they cross, not by the speeds that NCCL plans with.

NCCL's channel speeds are budgets of its search; a channel through host memory goes as fast as links let it. With a_l
the share of the ring's data that crosses link l (channels that cross it, Intel's host bridges counted 6/5 as NCCL does,
over channels),

    wires = min over PCI links of capacity_l / a_l,        host = min over NUMA links and memory of capacity_l / a_l

Of the wires a transport reaches its efficiency (stores up and loads down share the GPU's link); what joins NUMA nodes
and their memory have the capacity that they sustain.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import inf

from cost_models.network.channels import Graph
from cost_models.network.node import Node
from cost_models.topology.links import HOST_LINKS


@dataclass(frozen=True)
class StagedRate:
    """Bounds of a ring's bus bandwidth, GB/s; infinite where it does not cross such links."""

    wires_gb_per_s: float = inf
    host_gb_per_s: float = inf


def staged_rate(node: Node, ring: Graph) -> StagedRate:
    """Bounds of the rings of one node."""
    machine = node.transport.machine
    crossings: Counter[int] = Counter()
    for hop in hops(ring):
        way = node.gpu_ways[hop]
        crossings.update(dict.fromkeys(node.memory(*hop), 1.0) | dict(zip(way.links, way.shares, strict=True)))
    bounds = {False: inf, True: inf}
    for link, share in crossings.items():
        host = machine.links[link].type in HOST_LINKS
        bounds[host] = min(bounds[host], len(ring.channels) / share * node.capacities[link])
    return StagedRate(bounds[False], bounds[True])


def hops(ring: Graph) -> list[tuple[int, int]]:
    """All (from, to) of the channels inside a node, by place."""
    return [
        hop
        for channel in ring.channels
        for hop in zip(channel.gpus, (*channel.gpus[1:], channel.gpus[0]), strict=True)
        if hop[0] != hop[1] and (channel.net_in < 0 or hop[1] != channel.gpus[0])
    ]

"""How many bytes each link carries when all ranks of a group send to all, or around NCCL's rings.

Small groups are routed pair by pair. Of large ones the first node stands for all: its sends to itself, to another node
on its leaf switch, and to one on another leaf, each as often as there are such nodes; a leaf's links to the spine carry
that of every node on the leaf.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cost_models.network.channels import RING, Graph
from cost_models.network.flows import route_flows
from cost_models.network.node import Node
from cost_models.topology import ClusterTopology
from cost_models.topology.links import GB_PER_S

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MOST_EXACT_RANKS = 128


def all_to_all_loads(topology: ClusterTopology, group: IntArray) -> FloatArray:
    """Bytes on each link for one byte of every (source, target); of large groups on those of the first node.

    >>> from cost_models.topology import load_topology
    >>> float(all_to_all_loads(load_topology("dgx-h100"), np.arange(8)).max())
    7.0
    """
    loads = np.zeros(len(topology.link_capacities_bytes_per_s))
    if len(group) <= MOST_EXACT_RANKS:
        _add(topology, loads, group, group, 1.0)
        return loads
    nodes, counts = np.unique(topology.node_of[group], return_counts=True)
    leaves = _leaves(topology, nodes)
    first = group[topology.node_of[group] == nodes[0]]
    _add(topology, loads, first, first, 1.0)
    for same_leaf in (True, False):
        chosen = np.flatnonzero((leaves == leaves[0]) == same_leaf)
        others = chosen[nodes[chosen] != nodes[0]]
        if len(others):
            other = group[topology.node_of[group] == nodes[others[0]]]
            weight = counts[others].sum() / len(other)
            _add(topology, loads, first, other, weight)
            _add(topology, loads, other, first, weight)
    spine = topology.numbering.spine_link(0)
    loads[spine:] *= (leaves == leaves[0]).sum()
    return loads


def _leaves(topology: ClusterTopology, nodes: IntArray) -> IntArray:
    """Leaf switch of each node; 0 for all where each has ports on every leaf."""
    fabric = topology.fabric
    return np.zeros(len(nodes), np.int64) if fabric is None or fabric.kind == "rail" else nodes // fabric.nodes_per_leaf


def _add(topology: ClusterTopology, loads: FloatArray, one: IntArray, other: IntArray, weight: float) -> None:
    src, dst = (ends.ravel() for ends in np.meshgrid(one, other, indexing="ij"))
    different = src != dst
    np.add.at(loads, route_flows(topology, src[different], dst[different]).link, weight)


def channel_loads(topology: ClusterTopology, node: Node, graph: Graph, number: int = 0) -> FloatArray:
    """Bytes on each link of a node (``number`` of the cluster) for one byte that every channel passes on."""
    loads = np.zeros(len(topology.link_capacities_bytes_per_s))
    start = topology.numbering.start(number)
    for channel in graph.channels:
        ways = [node.gpu_ways[hop] for hop in pairwise(channel.gpus)]
        if channel.net_in >= 0:
            last = channel.gpus[-1] if graph.pattern == RING else channel.gpus[0]
            ways += [node.in_way(channel.net_in, channel.gpus[0]), node.out_ways[last, channel.net_out]]
            wired = topology.numbering.wired[topology.machine_of_node[number]]
            for net, back in ((channel.net_in, 1), (channel.net_out, 0)):
                if net in wired:  # else a further port of a GPU, whose wire the cluster does not have
                    loads[topology.numbering.uplink(number, net) + back] += 1
        elif len(channel.gpus) > 1:
            ways.append(node.gpu_ways[channel.gpus[-1], channel.gpus[0]])
        for way in ways:
            np.add.at(loads, start + np.asarray(way.links, np.int64), np.asarray(way.shares))
    return loads


def fabric_share(topology: ClusterTopology, group: IntArray, graph: Graph) -> float:
    """Share of the channels' speed between nodes that the leaves' links to the spine leave; 1 where they are enough.

    Channels go from node to node in order, on the same rail, as NCCL wires them; to several spines as they are hashed.
    """
    fabric, nodes = topology.fabric, topology.node_of[group]
    if fabric is None or nodes[0] == nodes[-1] or (fabric.oversubscription == 1 and fabric.spines == 1):
        return 1.0
    return _fabric_share(topology, np.sort(group).tobytes(), len(graph.channels) * graph.inter_gb_per_s * GB_PER_S)


@lru_cache(maxsize=256)
def _fabric_share(topology: ClusterTopology, group: bytes, bus_bytes_per_s: float) -> float:
    src, dst, width = between_nodes(topology, np.frombuffer(group, np.int64))
    link = route_flows(topology, src, dst).link
    spine = topology.numbering.spine_link(0)
    crossed, count = np.unique(link[link >= spine], return_counts=True)
    needed = count * bus_bytes_per_s / width
    return float(np.min(topology.link_capacities_bytes_per_s[crossed] / needed, initial=1.0))


def between_nodes(topology: ClusterTopology, group: IntArray) -> tuple[IntArray, IntArray, int]:
    """Source and target of the flows of rings from each node to the next, and how many from each: one for each GPU."""
    nodes = topology.node_of[group]
    members = [group[nodes == node] for node in np.unique(nodes)]
    width = min(len(node) for node in members)
    src = np.concatenate([node[:width] for node in members])
    return src, np.roll(src, -width), width


def slowest_share(topology: ClusterTopology, group: IntArray, graph: Graph) -> float:
    """Share of the channels' speed that is left where links of the group's nodes have lost capacity, 1 where none has.

    NCCL does not notice: the channels stay, and all of them wait for the slowest.
    """
    if not topology.slowed:
        return 1.0
    slow = np.array([link for link, _ in topology.slowed])
    share = 1.0
    for number in np.unique(topology.node_of[group]).tolist():
        local = tuple(np.sort(topology.local_rank[group[topology.node_of[group] == number]]).tolist())
        several = len(np.unique(topology.node_of[group])) > 1
        node = Node(topology.transports[topology.machine_of_node[number]], several, local)
        needed = channel_loads(topology, node, graph, number)[slow] * graph.intra_gb_per_s * GB_PER_S
        left = topology.link_capacities_bytes_per_s[slow]
        share = min(share, *(left[needed > 0] / needed[needed > 0]).tolist(), 1.0)
    return share

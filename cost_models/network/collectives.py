"""Seconds of one collective over a group of ranks, by the traffic it puts on each link.

    t = overhead(n) + max over links of bytes / (efficiency capacity)

The bytes that cross a link follow from the algorithm: rings send each rank's data (n - 1) / n of the way round, once
for all-gather, reduce-scatter and broadcast, twice for all-reduce; rings of several nodes are as many as a node's NICs,
each crossing the boundary over another one. An all-to-all sends 1 / n of a rank's data to every rank of the group.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cost_models.hardware import HardwareProfile
from cost_models.network.flows import route_flows
from cost_models.topology import ClusterTopology
from traces.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

COLLECTIVES = ("all_to_all", "all_gather", "reduce_scatter", "all_reduce", "broadcast")


def estimate_collective_s(
    topology: ClusterTopology, profile: HardwareProfile, kind: str, ranks: ArrayLike, bytes_per_rank: int
) -> float:
    """Seconds of a collective.

    Parameters
    ----------
    kind : one of ``COLLECTIVES``.
    ranks : the group, in the order of the communicator.
    bytes_per_rank : each rank's input: its chunk of an all-gather, all n chunks of a reduce-scatter or all-to-all, the
        whole vector of an all-reduce or broadcast.

    Raises
    ------
    InputError
        Where the collective is unknown, a rank occurs twice or does not exist, or bytes are negative.

    >>> from cost_models.hardware import load_hardware
    >>> from cost_models.topology import load_topology
    >>> node, gpu = load_topology("dgx-h100"), load_hardware("h100-sxm")
    >>> 2**30 * 7 / estimate_collective_s(node, gpu, "all_gather", range(8), 2**30) / 1e9 > 300
    True
    """
    group = np.asarray(ranks, np.int64)
    _check(topology, kind, group, bytes_per_rank)
    if len(group) == 1 or bytes_per_rank == 0:
        return 0.0
    members = _by_node(topology, group)
    if kind == "all_to_all":
        return _all_to_all_s(topology, profile, members, bytes_per_rank / len(group))
    chunk = bytes_per_rank if kind == "all_gather" else bytes_per_rank / len(group)
    sent = {"all_reduce": 2 * (len(group) - 1), "broadcast": len(group)}.get(kind, len(group) - 1) * chunk
    return _ring_s(topology, profile, members, sent)


def _check(topology: ClusterTopology, kind: str, group: IntArray, n_bytes: int) -> None:
    if kind not in COLLECTIVES:
        raise InputError("unknown collective", got=repr(kind), expected="one of " + ", ".join(COLLECTIVES))
    if group.size == 0 or len(np.unique(group)) < group.size:
        raise InputError("a collective's ranks are not a group", got=group.tolist(), expected="different ranks")
    if group.min() < 0 or group.max() >= topology.n_ranks:
        raise InputError("no such rank", got=int(group.max()), expected=f"0 to {topology.n_ranks - 1}")
    if n_bytes < 0:
        raise InputError("negative bytes", got=n_bytes)


def _by_node(topology: ClusterTopology, group: IntArray) -> list[IntArray]:
    """The group's ranks, node by node."""
    nodes = topology.node_of[group]
    order = np.argsort(nodes, kind="stable")
    _, first = np.unique(nodes[order], return_index=True)
    return np.split(group[order], first[1:])


def _ring_s(topology: ClusterTopology, profile: HardwareProfile, members: list[IntArray], sent: float) -> float:
    """Rings through all nodes, one entering and leaving each node at every one of its ranks."""
    inside = members[0]
    src, dst = inside, np.roll(inside, -1)
    loads = [(src, dst, np.full(len(inside), sent))] if len(inside) > 1 else []
    if len(members) > 1:
        rings = min(len(node) for node in members)
        sources, targets = members[0][:rings], members[1][:rings]
        loads.append((sources, targets, np.full(rings, sent / rings)))
    return _slowest_s(topology, profile, loads)


def _all_to_all_s(topology: ClusterTopology, profile: HardwareProfile, members: list[IntArray], part: float) -> float:
    """Pairs inside the first node, and between it and all others as if they were its next."""
    inside, outside = members[0], sum(len(node) for node in members[1:])
    loads = []
    if len(inside) > 1:
        src, dst = np.array(list(permutations(inside.tolist(), 2)), np.int64).T
        loads.append((src, dst, np.full(len(src), part)))
    if outside:
        other = members[1]
        spread = np.resize(other, len(inside))
        loads.append((inside, spread, np.full(len(inside), part * outside)))
    return _slowest_s(topology, profile, loads)


def _slowest_s(
    topology: ClusterTopology, profile: HardwareProfile, loads: list[tuple[IntArray, IntArray, FloatArray]]
) -> float:
    """Overhead of the slowest kind of route, and the time of the busiest link."""
    busy_s = np.zeros(len(topology.link_capacities_bytes_per_s))
    overhead_s = 0.0
    for src, dst, sizes in loads:
        routes = route_flows(topology, src, dst)
        curves = [profile.links[route.kind] for route in routes.classes]
        efficiency = np.array([curve.efficiency for curve in curves])[routes.route_class]
        np.add.at(busy_s, routes.link, (sizes / efficiency)[routes.flow])
        overhead_s = max(overhead_s, *(float(curve.overhead_s(sizes.sum())) for curve in curves))
    return overhead_s + float((busy_s / topology.link_capacities_bytes_per_s).max())

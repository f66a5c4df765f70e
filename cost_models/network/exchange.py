"""Seconds of simultaneous point-to-point flows, as in one step of a ring.

    t_i = overhead(n_i) + n_i / r_i,        overhead and ceiling of r_i by the `LinkCurve` of the route's kind

r_i is the max-min fair share of the links on the routes while all flows run: a flow that outlasts the others is not
sped up when they end (the DES engine does that). Shares are taken of what the links' curves reach: a flow takes
1 / efficiency of its kind per byte, so that one flow alone gets exactly its curve. Of the links of
a host (between NUMA nodes, to their memory) it takes just its bytes.

Ranks that flows join form a communicator, which says over how many channels NCCL sends to one peer: on a node of 8
NVSwitched GPUs 4 of 32 (up to 64 MiB), of 16 GPUs on two nodes the 4 that fill a port, in groups of 64 and more 2 or 1.
On the network a channel is taken to carry 14 GB/s, NCCL's own assumption (src/graph/paths.cc): 14.5 were measured over
one channel, 26 over two and 42 to 44, the port's, over four (B200, NCCL 2.29.7: `simulator/replay/data`, nccl). So a
flow to another node reaches a part of its port only in large groups, and before NCCL 2.29 in any (two channels, one of
many ranks).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cost_models.network.communicator import NET_CHANNEL_GB_PER_S, communicator
from cost_models.network.fairness import max_min_rates
from cost_models.network.flows import FlowRoutes, route_flows
from cost_models.network.terms import regimes_of
from cost_models.topology import ClusterTopology
from cost_models.topology.links import GB_PER_S
from traces.errors import InputError

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def estimate_exchange_s(
    topology: ClusterTopology, profile: HardwareProfile, src: ArrayLike, dst: ArrayLike, n_bytes: ArrayLike, *,
    largest: float = 1.0,
) -> FloatArray:  # fmt: skip
    """Seconds of flows that start together, one per (src, dst).

    Parameters
    ----------
    src, dst : ranks, one dimension; a flow from a rank to itself costs nothing.
    n_bytes : size of all flows or of each; nothing is sent, at no cost, where it is 0.
    largest : share of the largest message where a flow is several: messages of one group to the same rank have the same
        channels (NCCL sets them by peer), as many as their own sizes ask for.

    Raises
    ------
    InputError
        Where a size is negative or the shapes differ.

    >>> from cost_models.hardware import load_hardware
    >>> from cost_models.topology import load_topology
    >>> node, gpu = load_topology("dgx-h100"), load_hardware("h100-sxm")
    >>> (estimate_exchange_s(node, gpu, [0, 1, 2], [1, 0, 2], 2**20) * 1e6).round(1).tolist()
    [18.3, 18.3, 0.0]
    """
    sources, targets = np.broadcast_arrays(np.asarray(src, np.int64), np.asarray(dst, np.int64))
    if sources.ndim != 1 or np.ndim(n_bytes) > 1 or np.size(n_bytes) not in (1, sources.size):
        raise InputError("flows do not match", got=f"{np.shape(src)}, {np.shape(dst)}, {np.shape(n_bytes)}",
                         expected="src, dst and bytes of one length")  # fmt: skip
    sizes = np.broadcast_to(np.asarray(n_bytes, np.float64), sources.shape)
    if sizes.size and sizes.min() < 0:
        raise InputError("negative bytes", got=sizes.min())
    seconds = np.zeros(sources.shape)
    moving = (sources != targets) & (sizes > 0)
    if moving.any():
        seconds[moving] = _moving(topology, profile, sources[moving], targets[moving], sizes[moving], largest)
    return seconds


def _moving(
    topology: ClusterTopology, profile: HardwareProfile, src: IntArray, dst: IntArray, sizes: FloatArray, largest: float
) -> FloatArray:
    routes = route_flows(topology, src, dst)
    overhead, ceilings, efficiency = flow_terms(topology, profile, routes, src, dst, sizes, largest)
    return overhead + sizes / fair_rates(topology, routes, ceilings, efficiency)


def fair_rates(
    topology: ClusterTopology, routes: FlowRoutes, ceilings: FloatArray, efficiency: FloatArray
) -> FloatArray:
    """Max-min fair rate of each flow while all of them run."""
    weights = link_weights(topology, routes.link, efficiency[routes.flow])
    return max_min_rates(routes.flow, routes.link, topology.link_capacities_bytes_per_s, ceilings, weights)


def link_weights(topology: ClusterTopology, link: IntArray, efficiency: ArrayLike) -> FloatArray:
    """Capacity that flows of an efficiency take of links per unit of rate: of a host's links just their bytes."""
    return np.where(topology.host_links[link], 1.0, 1 / np.asarray(efficiency, np.float64))


def flow_terms(
    topology: ClusterTopology,
    profile: HardwareProfile,
    routes: FlowRoutes,
    src: IntArray,
    dst: IntArray,
    sizes: FloatArray,
    largest: float = 1.0,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Overhead (s), rate alone (bytes per second) and efficiency of each flow of an exchange."""
    overhead, rate, efficiency = (np.empty(routes.n_flows) for _ in range(3))
    channels = flow_channels(topology, src, dst, largest * sizes)
    one_way = ~(np.isin(src, dst) | np.isin(dst, src))
    for number, route in enumerate(routes.classes):
        curve, flows = profile.links[route.kind], routes.route_class == number
        overhead[flows] = curve.overhead_s(sizes[flows], channels[flows])
        wires = curve.rate_bytes_per_s(route.wire_bytes_per_s, channels[flows], one_way=one_way[flows])
        if route.kind == "net":
            wires = np.minimum(wires, channels[flows] * (NET_CHANNEL_GB_PER_S * GB_PER_S))
        rate[flows] = np.minimum(wires, route.host_bytes_per_s)
        efficiency[flows] = curve.efficiency
    both = "exchange" if routes.n_flows > 1 else "one-way"
    measured = regimes_of(topology, profile, both)
    if measured is not None:  # the only route there is
        overhead, rate = measured.at(largest * sizes)
        wire = routes.classes[0].wire_bytes_per_s
        rate = np.minimum(rate, wire)
        efficiency = np.maximum(efficiency, rate / wire)
    return overhead, rate, efficiency


def flow_channels(topology: ClusterTopology, src: IntArray, dst: IntArray, sizes: FloatArray) -> IntArray:
    """Channels that NCCL gives each flow: of the communicator of all ranks that flows join, by its size.

    Communicators of one size are taken to be alike; within one all peers have the same number.

    >>> from cost_models.topology import load_topology
    >>> ring, node = np.arange(8), load_topology("dgx-h100")
    >>> flow_channels(node, ring, (ring + 1) % 8, np.full(8, 2.0**24)).tolist()
    [4, 4, 4, 4, 4, 4, 4, 4]
    """
    labels = group_labels(topology.n_ranks, src, dst)
    joined = np.bincount(labels)[labels[src]]
    channels = np.empty(len(src), np.int64)
    for size in np.unique(joined).tolist():
        flows = np.flatnonzero(joined == size)
        comm = communicator(topology, np.flatnonzero(labels == labels[src[flows[0]]]))
        distinct, where = np.unique(sizes[flows], return_inverse=True)
        channels[flows] = np.array([comm.send_channels(float(each)) for each in distinct])[where]
    return channels


def group_labels(n_ranks: int, src: IntArray, dst: IntArray) -> IntArray:
    """Smallest rank of the communicator of each rank.

    >>> group_labels(6, np.array([0, 1, 2, 4, 5]), np.array([1, 2, 0, 5, 4])).tolist()
    [0, 0, 0, 3, 4, 4]
    """
    label = np.arange(n_ranks)
    while True:  # the smallest rank that each reaches, over paths twice as long every round
        smaller = label.copy()
        least = np.minimum(label[src], label[dst])
        np.minimum.at(smaller, src, least)
        np.minimum.at(smaller, dst, least)
        smaller = smaller[smaller]
        if np.array_equal(smaller, label):
            break
        label = smaller
    return label

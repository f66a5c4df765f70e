"""Why is it slow? What GPUs of a topology reach of each other, and what limits patterns over all of them.

A pair alone reaches min(efficiency of its link's curve times the slowest link, its channels); its bottleneck is that
slowest link. Of patterns over all GPUs (ring: every rank to the next; all-to-all: to every other; all-gather: over
NCCL's channels) the link with the highest load over capacity limits. Messages are large: latencies are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cost_models.network.channels import RING
from cost_models.network.collectives import estimate_collective
from cost_models.network.communicator import communicator
from cost_models.network.exchange import flow_terms, link_weights
from cost_models.network.fairness import max_min_rates
from cost_models.network.flows import route_flows
from cost_models.network.graphs import find_graph
from cost_models.network.loads import all_to_all_loads, between_nodes, channel_loads
from cost_models.network.node import Node
from cost_models.network.staging import hops
from cost_models.topology import ClusterTopology, Route

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MATRIX_RANKS = 72
LARGE_BYTES, HOP_BYTES = 2**30, 2**24


@dataclass(frozen=True)
class PairBandwidth:
    """What one rank alone reaches to another, bytes per second, and the slowest link of the route."""

    kind: str
    bytes_per_s: float
    bottleneck: str


@dataclass(frozen=True)
class PatternBandwidth:
    """What a pattern over all ranks reaches.

    Attributes
    ----------
    bytes_per_s : that each rank sends (its bus bandwidth in the terms of nccl-tests).
    bottleneck : link that limits it. share : of its capacity that the pattern takes.
    loads : share of each link's capacity that the pattern takes.
    """

    pattern: str
    bytes_per_s: float
    bottleneck: str
    share: float
    loads: FloatArray


@dataclass(frozen=True)
class ChannelFacts:
    """NCCL's channels over all ranks.

    Attributes
    ----------
    nodes : on which the ranks are.
    rings, intra_gb_per_s, inter_gb_per_s, path_type : rings found, what each carries, and the worst path they use.
    collective, nvls, sends, per_peer : SMs of a collective, one with NVLink SHARP, all sends, one large send.
    """

    nodes: int
    rings: int
    intra_gb_per_s: float
    inter_gb_per_s: float
    path_type: str
    collective: int
    nvls: int
    sends: int
    per_peer: int


@dataclass(frozen=True)
class BandwidthReport:
    """Effective bandwidth of a topology.

    Attributes
    ----------
    ranks : those of the matrix: all, or those of the first two nodes.
    pairs : by (source, target).
    patterns : over all ranks: ring (of 1 GiB, and of 16 MiB, which have fewer channels), all-to-all, all-gather.
    channels : what NCCL finds.
    """

    ranks: tuple[int, ...]
    pairs: dict[tuple[int, int], PairBandwidth]
    patterns: tuple[PatternBandwidth, ...]
    channels: ChannelFacts


def measure_bandwidth(topology: ClusterTopology, profile: HardwareProfile) -> BandwidthReport:
    """Effective bandwidths of a topology.

    >>> from cost_models.hardware import load_hardware
    >>> from cost_models.topology import load_topology
    >>> report = measure_bandwidth(load_topology("pcie-8x", gpu="l40s"), load_hardware("l40s"))
    >>> report.pairs[0, 4].kind, [pattern.pattern for pattern in report.patterns]
    ('shm', ['ring', 'ring_of_16_mib', 'all_to_all', 'all_gather'])
    """
    if topology.n_ranks <= MATRIX_RANKS:
        ranks = tuple(range(topology.n_ranks))
    else:
        ranks = tuple(range(min(2 * topology.ranks_per_node, topology.n_ranks)))[:MATRIX_RANKS]
    return BandwidthReport(ranks, _pairs(topology, profile, ranks), _patterns(topology, profile), _channels(topology))


def _pairs(
    topology: ClusterTopology, profile: HardwareProfile, ranks: Sequence[int]
) -> dict[tuple[int, int], PairBandwidth]:
    found = {}
    for src, dst in permutations(ranks, 2):
        route = topology.route(src, dst)
        wires = float(profile.links[route.kind].rate_bytes_per_s(route.wire_bytes_per_s))
        rate = min(wires, route.host_bytes_per_s)
        found[src, dst] = PairBandwidth(route.kind, rate, _limit(topology, route, wires > route.host_bytes_per_s))
    return found


def _limit(topology: ClusterTopology, route: Route, by_host: bool) -> str:
    """Name of the slowest of a route's links of the host, or of the others."""
    among = [link for link in route.links if topology.host_links[link] == by_host]
    return topology.links[min(among, key=topology.link_capacities_bytes_per_s.__getitem__)].name


def _patterns(topology: ClusterTopology, profile: HardwareProfile) -> tuple[PatternBandwidth, ...]:
    if topology.n_ranks < 2:
        return ()
    rings = _ring(topology, profile, "ring", LARGE_BYTES), _ring(topology, profile, "ring_of_16_mib", HOP_BYTES)
    return *rings, _all_to_all(topology, profile), _all_gather(topology, profile)


def _ring(topology: ClusterTopology, profile: HardwareProfile, name: str, size: int) -> PatternBandwidth:
    """Each rank sends to the next; the ring is as fast as its slowest hop, which its channels or a link limit."""
    src = np.arange(topology.n_ranks)
    dst = np.roll(src, -1)
    routes = route_flows(topology, src, dst)
    sizes = np.full(topology.n_ranks, float(size))
    _, alone, efficiency = flow_terms(topology, profile, routes, src, dst, sizes)
    weights = link_weights(topology, routes.link, efficiency[routes.flow])
    rates = max_min_rates(routes.flow, routes.link, topology.link_capacities_bytes_per_s, alone, weights)
    slowest = int(np.argmin(rates))
    loads = np.bincount(routes.link, minlength=len(topology.link_capacities_bytes_per_s))
    own = routes.link[routes.flow == slowest]
    found = _pattern(topology, name, float(rates[slowest]), loads, own)
    route = routes.classes[routes.route_class[slowest]]
    wires = min(float(efficiency[slowest]) * route.wire_bytes_per_s, route.host_bytes_per_s)
    if rates[slowest] < alone[slowest] * (1 - 1e-9) or alone[slowest] >= wires * (1 - 1e-9):
        return found
    channels = communicator(topology, src).send_channels(size)
    return replace(found, bottleneck=f"{channels} channel{'s' * (channels > 1)} of a send")


def _all_to_all(topology: ClusterTopology, profile: HardwareProfile) -> PatternBandwidth:
    ranks = np.arange(topology.n_ranks)
    seconds = estimate_collective(topology, profile, "all_to_all", ranks, LARGE_BYTES * topology.n_ranks).seconds
    rate = (topology.n_ranks - 1) * LARGE_BYTES / seconds
    return _pattern(topology, "all_to_all", rate, all_to_all_loads(topology, ranks) / (topology.n_ranks - 1))


def _all_gather(topology: ClusterTopology, profile: HardwareProfile) -> PatternBandwidth:
    """The bus bandwidth of NCCL's rings, each of which carries an equal part."""
    ranks = np.arange(topology.n_ranks)
    comm = communicator(topology, ranks)
    seconds = estimate_collective(topology, profile, "all_gather", ranks, LARGE_BYTES, algorithm="Ring").seconds
    rate = (topology.n_ranks - 1) * LARGE_BYTES / seconds
    node = Node(topology.transports[topology.machine_of_node[0]], topology.n_nodes > 1)
    graph = find_graph(node, RING, cross_nic=topology.nccl.cross_nic)
    loads = channel_loads(topology, node, graph)
    for hop in hops(graph):
        loads[list(node.memory(*hop))] += 1
    loads /= len(comm.ring.channels)
    if topology.n_nodes > 1:
        src, dst, width = between_nodes(topology, ranks)
        link = route_flows(topology, src, dst).link
        np.add.at(loads, link[link >= topology.numbering.spine_link(0)], 1 / width)
    return _pattern(topology, "all_gather", rate, loads)


def _pattern(
    topology: ClusterTopology, name: str, rate: float, loads: NDArray[Any], among: IntArray | None = None
) -> PatternBandwidth:
    """``loads``: bytes on each link per byte that a rank sends; ``among``: links of which one limits."""
    shares = loads * rate / topology.link_capacities_bytes_per_s
    limit = int(np.argmax(shares)) if among is None else int(among[np.argmax(shares[among])])
    return PatternBandwidth(name, rate, topology.links[limit].name, float(shares[limit]), shares)


def _channels(topology: ClusterTopology) -> ChannelFacts:
    comm = communicator(topology, np.arange(topology.n_ranks))
    ring = comm.ring
    return ChannelFacts(
        topology.n_nodes, len(ring.channels), ring.intra_gb_per_s, ring.inter_gb_per_s, ring.type_intra.name,
        comm.n_channels, comm.nvls_channels, comm.p2p_channels, comm.send_channels(LARGE_BYTES),
    )  # fmt: skip

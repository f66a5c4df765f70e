"""A group of ranks as NCCL sets it up: channels of collectives, NVLink SHARP and sends, and how they are wired.

Collectives use the ring's channels twice (two copies of each); sends and receives as many, up to the next power of two,
divided among the peers. A channel is one thread block and holds one SM for as long as its kernel runs.

Source: NVIDIA/nccl 2.30.7 src/graph/connect.cc (ncclTopoPostset), src/graph/paths.cc (ncclTopoComputeP2pChannels;
before 2.29 ncclTopoGetNchannels had two channels for a peer on another node, since 2.20 halved where twice the ranks
are more than four times the channels; nccl#1272, ROCm/rocm-systems#6453), src/transport/nvls.cc, src/enqueue.cc (chunk
sizes, channels per operation; addP2pToPlan chose a send's protocol before its channels until 2.28).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cost_models.network.channels import BALANCED_TREE, RING, Graph
from cost_models.network.graphs import find_collnet, find_graph, find_nvls
from cost_models.network.node import Node
from cost_models.network.staging import StagedRate, staged_rate
from cost_models.topology import ClusterTopology, NcclSettings
from cost_models.topology.links import GB_PER_S, nvlink_bytes_per_s
from cost_models.topology.paths import PathType
from traces.errors import InputError

IntArray = NDArray[np.int64]

KIB = 2**10
NET_CHANNEL_GB_PER_S = 14.0
STAGED_KINDS = ("shm", "net", "socket")
"""Of ways inside a node for which NCCL's search has no speeds of its own."""
BY_SCALE, BY_BANDWIDTH = (2, 20), (2, 29)
"""Sends to another node have two channels; since the first version one of many ranks, since the second as many as its
NIC needs."""
BY_OPERATION = (2, 22)
P2P_LL_BYTES, LL_STEP_BYTES = 16 * KIB, 64 * KIB
"""A send goes by LL up to so much a channel: of those it has (since 2.29), of the most that it may have (since 2.22),
or of one; LL moves the second in one step."""
_NVLS_CHANNELS = {90: (16, 16), 100: (24, 32)}  # on one node, on several


@dataclass(frozen=True, eq=False)
class Communicator:
    """What NCCL decides once for a group of ranks.

    Attributes
    ----------
    n_ranks, n_nodes : of the group.
    sm : compute capability of the GPUs times 10. amd : whether the CPUs are AMD's.
    intra_kind : how ranks of one node reach each other (worst pair): a kind of link, ``local`` with one rank per node.
    inter_kind : ``net`` or ``socket``.
    ring, tree, nvls : channels of one node, the least of all nodes.
    n_channels : of ring and tree collectives. nvls_channels : of NVLS collectives, 0 where there are none.
    p2p_channels, p2p_per_peer : of all sends of a rank, and at most of one.
    p2p_chunk_bytes, p2p_min_part_bytes, p2p_max_part_bytes : of sends: what moves in one step, and what a channel gets.
    switched : NVSwitches join the GPUs.
    collnet : channels of CollNetDirect, none where NCCL does not use it.
    staged : what rings reach of links and host memory; unbounded where none of a node's hops is staged there.
    """

    n_ranks: int
    n_nodes: int
    sm: int
    amd: bool
    intra_kind: str
    inter_kind: str
    ring: Graph
    tree: Graph
    nvls: Graph
    n_channels: int
    nvls_channels: int
    p2p_channels: int
    p2p_per_peer: int
    p2p_chunk_bytes: int
    p2p_min_part_bytes: int
    p2p_max_part_bytes: int
    switched: bool
    settings: NcclSettings
    staged: StagedRate = StagedRate()
    collnet: Graph = Graph("collnet")

    @property
    def ranks_per_node(self) -> float:
        """Average number of ranks per node."""
        return self.n_ranks / self.n_nodes

    def send_channels(self, n_bytes: float) -> int:
        """Channels of one send in a group in which every rank may send to every other.

        >>> from cost_models.topology import load_topology
        >>> pair = communicator(load_topology("hgx-h200", 2), range(2))
        >>> [pair.send_channels(size) for size in (2**18, 2**20, 2**28, 2**29)]
        [4, 16, 16, 32]
        """
        if self.settings.version < BY_BANDWIDTH and self.sends_lines(n_bytes):
            return self._part(n_bytes, LL_STEP_BYTES // (8 if self.n_nodes == 1 else 2), LL_STEP_BYTES)
        return self._part(n_bytes, self.p2p_min_part_bytes, self.p2p_max_part_bytes)

    def sends_lines(self, n_bytes: float) -> bool:
        """Whether NCCL sends so much by LL.

        >>> from cost_models.topology import load_topology
        >>> both = [load_topology("hgx-h200", 2, nccl=NcclSettings(version=each)) for each in ((2, 28), (2, 29))]
        >>> [[communicator(each, range(2)).sends_lines(size) for size in (2**14, 2**19, 2**20)] for each in both]
        [[True, True, False], [True, False, False]]
        """
        version = self.settings.version
        if version >= BY_BANDWIDTH:
            most = self._part(n_bytes, self.p2p_min_part_bytes, self.p2p_max_part_bytes)
        else:
            most = self.p2p_per_peer if version >= BY_OPERATION else 1
        return n_bytes <= most * P2P_LL_BYTES

    def _part(self, n_bytes: float, least: int, most: int) -> int:
        """Channels for parts of at least and at most so many bytes, the first of which is kept where both cannot be."""
        first = self.p2p_per_peer
        while first > 1 and first * self.n_ranks > self.p2p_channels:
            first //= 2
        channels = max(min(first, ceil(n_bytes / least)), 1)
        while n_bytes / channels > most and channels <= self.p2p_per_peer / 2:
            channels *= 2
        return channels

    def all_to_all_channels(self, n_bytes: float) -> int:
        """Channels (SMs) of sends of ``n_bytes`` to all ranks at once."""
        return min(self.p2p_channels, self.send_channels(n_bytes) * self.n_ranks)


def communicator(topology: ClusterTopology, ranks: ArrayLike) -> Communicator:
    """The communicator of a group, remembered.

    Parameters
    ----------
    ranks : at least one, all different.

    Raises
    ------
    InputError
        Where the ranks are not such a group.

    >>> from cost_models.topology import load_topology
    >>> node = communicator(load_topology("dgx-h100"), range(8))
    >>> len(node.ring.channels), node.ring.intra_gb_per_s, node.n_channels, node.p2p_channels
    (12, 30.0, 24, 32)
    """
    group = np.asarray(ranks, np.int64)
    if group.ndim != 1 or group.size == 0 or len(np.unique(group)) < group.size:
        raise InputError("a collective's ranks are not a group", got=group.tolist(), expected="different ranks")
    if group.min() < 0 or group.max() >= topology.n_ranks:
        raise InputError("no such rank", got=int(group.max()), expected=f"0 to {topology.n_ranks - 1}")
    by_node = _by_node(topology, group)
    members = tuple(sorted({(topology.machine_of_node[node], local) for node, local in by_node}))
    return _build(topology, members, len(by_node), group.size)


def _by_node(topology: ClusterTopology, group: IntArray) -> list[tuple[int, tuple[int, ...]]]:
    """Each node with its local ranks of the group."""
    ordered = np.sort(group)
    nodes, first = np.unique(topology.node_of[ordered], return_index=True)
    parts = np.split(topology.local_rank[ordered], first[1:])
    return [(int(node), tuple(part.tolist())) for node, part in zip(nodes, parts, strict=True)]


@lru_cache(maxsize=512)
def _build(
    topology: ClusterTopology, members: tuple[tuple[int, tuple[int, ...]], ...], n_nodes: int, n_ranks: int
) -> Communicator:
    settings = topology.nccl
    nodes = [Node(topology.transports[machine], n_nodes > 1, local) for machine, local in members]
    rings = [find_graph(node, RING, cross_nic=settings.cross_nic) for node in nodes]
    ring = _least(rings)
    count = len(ring.channels)
    tree = _least(find_graph(node, BALANCED_TREE, count, count) for node in nodes)
    n_channels = _collective_channels(ring, nodes[0].sm, n_nodes, settings)
    p2p_channels = min(_power_of_two(n_channels), settings.max_p2p_nchannels)
    nvlinked = all(way.type <= PathType.NVB for node in nodes for way in node.gpu_ways.values())
    chunk = 512 * KIB if nvlinked and n_nodes == 1 else 128 * KIB
    nvls = _least(find_nvls(node) for node in nodes)
    machine = nodes[0].transport.machine
    intra_kind = _worst_kind(nodes)
    return Communicator(
        n_ranks=n_ranks, n_nodes=n_nodes, sm=nodes[0].sm, amd=machine.amd,
        intra_kind=intra_kind, inter_kind="socket" if any(net.socket for net in machine.nets) else "net",
        ring=ring, tree=tree, nvls=nvls, n_channels=n_channels,
        nvls_channels=_nvls_channels(nvls, nodes[0].sm, n_nodes, settings),
        p2p_channels=p2p_channels, p2p_per_peer=_per_peer(nodes, n_nodes, n_ranks, p2p_channels, settings),
        p2p_chunk_bytes=chunk,
        p2p_min_part_bytes=chunk // 8 if n_nodes == 1 else chunk // 2,
        p2p_max_part_bytes=32 * chunk if n_nodes == 1 else chunk,
        switched=all(node.has_nvswitch for node in nodes), settings=settings,
        staged=_staged(nodes, rings) if intra_kind in STAGED_KINDS else StagedRate(),
        collnet=_least(map(find_collnet, nodes)) if settings.collnet_enable and n_nodes > 1 else Graph("collnet"),
    )  # fmt: skip


def _staged(nodes: list[Node], rings: list[Graph]) -> StagedRate:
    found = [staged_rate(node, ring) for node, ring in zip(nodes, rings, strict=True)]
    return StagedRate(min(each.wires_gb_per_s for each in found), min(each.host_gb_per_s for each in found))


def _least(graphs: Iterable[Graph]) -> Graph:
    return min(graphs, key=lambda graph: graph.bus_gb_per_s)


def _collective_channels(ring: Graph, sm: int, n_nodes: int, settings: NcclSettings) -> int:
    channels = min(2 * len(ring.channels), 64)
    if n_nodes > 1 and sm >= 90 and ring.intra_gb_per_s > 45 and channels < 16:
        channels *= 2
    channels = min(channels, settings.max_nchannels, settings.max_ctas)
    return max(channels, settings.min_nchannels, settings.min_ctas, 1)


def _nvls_channels(nvls: Graph, sm: int, n_nodes: int, settings: NcclSettings) -> int:
    if not nvls.channels or not settings.nvls_enable:
        return 0
    usual = _NVLS_CHANNELS[100 if sm >= 100 else 90][n_nodes > 1]
    return min(settings.nvls_nchannels or usual, settings.max_ctas)


def _per_peer(nodes: list[Node], n_nodes: int, n_ranks: int, p2p_channels: int, settings: NcclSettings) -> int:
    """Channels of one send: as few as the worst peer gets."""
    inside = [_local_per_peer(way.type, way.gb_per_s, node.sm) for node in nodes for way in node.gpu_ways.values()]
    if n_nodes == 1:
        return min(_power_of_two(min(inside, default=1)), p2p_channels)
    if settings.version < BY_BANDWIDTH:
        many = settings.version >= BY_SCALE and 2 * n_ranks > 4 * p2p_channels
        outside = settings.nchannels_per_net_peer or (1 if many else 2)
        return min(_power_of_two(min([*inside, outside])), p2p_channels)
    channels = min(_power_of_two(min([*inside, *(_net_per_peer(node, settings) for node in nodes)])), p2p_channels)
    while channels > 1 and channels * ceil(n_ranks / 8) > p2p_channels:
        channels //= 2
    return channels


def _local_per_peer(path_type: PathType, gb_per_s: float, sm: int) -> int:
    if path_type > PathType.NVB:
        return 2
    return 2 * max(1, int(gb_per_s * GB_PER_S / nvlink_bytes_per_s(sm) + 1e-9))


def _net_per_peer(node: Node, settings: NcclSettings) -> int:
    if settings.nchannels_per_net_peer:
        return settings.nchannels_per_net_peer
    return max(2, ceil(max(node.net_gb_per_s.values(), default=0.0) / NET_CHANNEL_GB_PER_S))


def _worst_kind(nodes: list[Node]) -> str:
    order = ("local", "nvlink", "c2c", "pcie", "shm", "net", "socket")
    kinds = {
        node.transport.local(node.local_ranks[i], node.local_ranks[j]).kind for node in nodes for i, j in node.gpu_ways
    }
    return max(kinds, key=order.index, default="local")


def _power_of_two(count: int) -> int:
    return 1 << max(count - 1, 0).bit_length()

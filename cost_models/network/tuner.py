"""Which algorithm and protocol NCCL takes: the one of least estimated time, by NCCL's own constants.

    t = latency + bytes / bandwidth

for each algorithm (Ring, Tree, NVLS, NVLSTree, PAT; CollNet where it is enabled) and protocol (LL, LL128, Simple) that
the collective and topology allow. The estimate is NCCL's, kept here to make the same choice; how long it takes is
`algorithms`' matter.

Source: NVIDIA/nccl 2.30.7 src/graph/tuning.cc (ncclTopoTuneModel, ncclTopoGetAlgoTime); latencies in us, bandwidths in
GB/s as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

from cost_models.network import collnet
from cost_models.network.channels import Graph
from cost_models.network.communicator import Communicator
from cost_models.topology.paths import PathType
from traces.errors import InputError

PROTOCOLS = ("LL", "LL128", "Simple")
COLLECTIVES = ("all_to_all", "all_gather", "reduce_scatter", "all_reduce", "broadcast", "reduce")
ROOTED = ("broadcast", "reduce")
"""Along a ring from, or to, one rank."""

VOLTA, AMPERE, HOPPER, BLACKWELL = range(4)

# by protocol
RING_BASE_US, TREE_BASE_US = (6.6, 14.0, 8.4), (6.8, 14.0, 8.4)
PAT_BASE_US = 8.0
HOP_US = {
    ("Ring", "nvlink"): (0.6, 1.9, 3.4), ("Ring", "pci"): (1.0, 2.5, 5.7), ("Ring", "net"): (2.7, 4.0, 14.0),
    ("Tree", "nvlink"): (0.6, 1.25, 4.0), ("Tree", "pci"): (1.0, 1.9, 4.0), ("Tree", "net"): (5.0, 8.5, 14.0),
}  # fmt: skip
NVLS_US, NVLS_TREE_NET_US, PAT_NET_US = 25.0, 20.9, 14.0
NVLS_EFFICIENCY = (0.0, 0.0, 0.85, 0.74)

# by architecture; each for 1, 2 and more nodes
LL_MAX = ((39.0, 39.0, 20.4), (87.7, 22.5, 19.0), (141.0, 45.0, 35.0), (282.0, 90.0, 70.0))
CHANNEL_GB_PER_S = (20.0, 20.0, 36.7, 40.0)
_TREE_LL128 = ((20.0, 20.0, 20.0), (20.0, 20.0, 20.0), (36.7, 36.7, 29.0), (55.6, 31.67, 20.0))
_TREE = ((26.5, 18.5, 10.0), (24.0, 23.6, 17.8), (38.7, 41.4, 36.0), (70.0, 42.8, 24.0))
_NVLS_TREE = ((26.5, 18.5, 10.0), (24.0, 23.6, 17.8), (0.0, 57.7, 45.5), (0.0, 96.0, 80.0))

# by protocol and power of two, from 64 bytes on
_TREE_CORRECTION = (
    (1, 1, 1, 1, 0.9, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    (1, 1, 1, 1, 1, 0.9, 0.8, 0.8, 0.8, 0.7, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.8, 0.9, 0.9, 0.9, 0.9),
    (*(0.9,) * 7, 0.8, 0.7, 0.6, 0.6, 0.5, 0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.7, 0.7, 0.8, 0.9, 0.9, 0.9),
)


@dataclass(frozen=True)
class Choice:
    """An algorithm with a protocol, and NCCL's estimate of it."""

    algorithm: str
    protocol: str
    latency_us: float
    gb_per_s: float

    def time_us(self, n_bytes: float) -> float:
        """NCCL's estimate."""
        return self.latency_us + n_bytes / (1e3 * self.gb_per_s)


def architecture(sm: int) -> int:
    """Row of NCCL's tables."""
    return BLACKWELL if sm >= 100 else HOPPER if sm >= 90 else AMPERE if sm >= 80 else VOLTA


def ring_steps(kind: str, n_ranks: int) -> int:
    """Times that each part of the data moves on around the ring."""
    return {"all_reduce": 2 * (n_ranks - 1), **dict.fromkeys(ROOTED, n_ranks)}.get(kind, n_ranks - 1)


def choose(
    comm: Communicator, kind: str, n_bytes: float, algorithm: str | None = None, protocol: str | None = None
) -> Choice:
    """The choice of least estimated time.

    Parameters
    ----------
    kind : a collective other than all_to_all, which has no choice.
    n_bytes : larger of what all ranks' inputs and outputs hold: the whole vector.
    algorithm, protocol : what the user insists on.

    Raises
    ------
    InputError
        Where the collective cannot be done so.

    >>> from cost_models.network.communicator import communicator
    >>> from cost_models.topology import load_topology
    >>> node = communicator(load_topology("dgx-h100"), range(8))
    >>> [(c.algorithm, c.protocol) for c in (choose(node, "all_reduce", size) for size in (2**16, 2**28))]
    [('Ring', 'LL'), ('NVLS', 'Simple')]
    """
    settings = comm.settings
    found = [
        each for each in candidates(comm, kind, n_bytes)
        if each.algorithm in ((algorithm,) if algorithm else settings.algo)
        and each.protocol in ((protocol,) if protocol else settings.proto)
    ]  # fmt: skip
    if not found:
        wanted = f"{algorithm or '/'.join(settings.algo)} with {protocol or '/'.join(settings.proto)}"
        allowed = sorted({f"{each.algorithm}/{each.protocol}" for each in candidates(comm, kind, n_bytes)})
        raise InputError(f"{kind} cannot be done so here", got=wanted, expected=", ".join(allowed))
    return min(found, key=lambda each: each.time_us(n_bytes))


def candidates(comm: Communicator, kind: str, n_bytes: float) -> list[Choice]:
    """All that NCCL weighs against each other."""
    found = [_ring(comm, kind, n_bytes, protocol) for protocol in range(3)]
    if kind == "all_reduce":
        found += [_tree(comm, n_bytes, protocol) for protocol in range(3)]
    if kind not in ROOTED and comm.nvls_channels and len(comm.nvls.channels) > 1:
        found += [_nvls(comm, kind)] if comm.n_nodes == 1 else [_nvls_tree(comm)] if kind == "all_reduce" else []
    found += _collnet(comm, kind)
    one_gpu_per_node = comm.n_nodes == comm.n_ranks
    allowed = one_gpu_per_node if comm.settings.pat_enable == 2 else bool(comm.settings.pat_enable)
    if kind in ("all_gather", "reduce_scatter") and comm.n_nodes > 1 and allowed:
        found.append(_pat(comm))
    found = [each for each in found if comm.settings.has(each.algorithm)]
    return [each for each in found if each.gb_per_s > 0 and (each.protocol != "LL128" or _allows_ll128(comm, each))]


def _scale(comm: Communicator) -> int:
    return min(comm.n_nodes, 3) - 1


def _bus(comm: Communicator, graph: Graph) -> float:
    return len(graph.channels) * (graph.intra_gb_per_s if comm.n_nodes <= 2 else graph.inter_gb_per_s)


def hop_us(comm: Communicator, algorithm: str, protocol: int) -> tuple[float, float]:
    """Latency of a hop inside a node and between nodes."""
    graph = comm.ring if algorithm == "Ring" else comm.tree
    inside = HOP_US[algorithm, "nvlink" if graph.type_intra <= PathType.NVL else "pci"][protocol]
    return inside, HOP_US["Tree" if comm.ranks_per_node == 1 else algorithm, "net"][protocol]


def _ll_max(comm: Communicator) -> float:
    row = architecture(comm.sm) if comm.n_nodes == 1 else AMPERE if comm.amd else VOLTA
    return LL_MAX[row][_scale(comm)]


def _ring(comm: Communicator, kind: str, n_bytes: float, protocol: int) -> Choice:
    graph, n = comm.ring, comm.n_ranks
    steps = ring_steps(kind, n)
    bus = _bus(comm, graph)
    if protocol == 0:
        bus = min(_ll_max(comm), 0.5 * bus)
    elif protocol == 1:
        bus = min(0.92 * bus, len(graph.channels) * CHANNEL_GB_PER_S[architecture(comm.sm)])
    return Choice("Ring", PROTOCOLS[protocol], _ring_us(comm, kind, n_bytes, protocol), bus * n / steps)


def _ring_us(comm: Communicator, kind: str, n_bytes: float, protocol: int) -> float:
    inside, between = hop_us(comm, "Ring", protocol)
    if kind in ROOTED:
        hop = between if comm.n_nodes > 1 else inside
        return RING_BASE_US[protocol] + hop * (1 if comm.ring.same_channels else comm.n_ranks)
    steps = ring_steps(kind, comm.n_ranks)
    net_steps = 0 if comm.n_nodes == 1 else (2 if kind == "all_reduce" else 1) * (comm.n_nodes - 1)
    overhead = 0.0 if comm.n_nodes == 1 else (2.0 if comm.amd else 1.0) * (3 if protocol == 2 else 1)
    latency = RING_BASE_US[protocol] + (steps - net_steps) * max(inside, overhead) + net_steps * between
    plateau = kind == "all_reduce" and protocol == 2 and comm.n_nodes > 1
    if plateau and n_bytes / (comm.n_channels * comm.n_ranks) >= 64:
        latency *= 1.4 if comm.sm >= 80 else 1.9
    return latency


def _tree(comm: Communicator, n_bytes: float, protocol: int) -> Choice:
    graph, row, scale = comm.tree, architecture(comm.sm), _scale(comm)
    channels = len(graph.channels)
    bus = min(0.92 * _bus(comm, graph), channels * _TREE[row][scale])
    if protocol == 0:
        bus = min(bus / 3.8, _ll_max(comm))
    elif protocol == 1:
        bus = min(bus * (7 / 9 if comm.n_nodes == 1 else 120 / 128), channels * _TREE_LL128[row][scale])
    bus *= 0.85 if graph.pattern == "tree" else 1.0
    inside, between = hop_us(comm, "Tree", protocol)
    hops = 2 * ((comm.ranks_per_node - 1) * inside + _log2(comm.n_nodes) * between)
    power = int(log2(n_bytes / 64)) if n_bytes >= 64 else -1
    correction = _TREE_CORRECTION[protocol][power] if 0 <= power < len(_TREE_CORRECTION[protocol]) else 1.0
    return Choice("Tree", PROTOCOLS[protocol], TREE_BASE_US[protocol] + hops, 0.5 * bus * correction)


def _nvls(comm: Communicator, kind: str) -> Choice:
    """On one node, or between nodes where the network reduces."""
    heads, n, g = len(comm.nvls.channels), comm.n_ranks, comm.ranks_per_node
    rate = comm.nvls.intra_gb_per_s * NVLS_EFFICIENCY[architecture(comm.sm)] * (heads - 1) / heads
    rate *= 2 if kind == "all_reduce" else (g - 1) / g
    latency = NVLS_US
    if comm.n_nodes > 1:
        rate, latency = min(rate, comm.nvls.inter_gb_per_s), latency + collnet.nvls_net_us()
    return Choice("NVLS", "Simple", latency, heads * rate * (n / ring_steps(kind, n) if kind == "all_reduce" else 1))


def _collnet(comm: Communicator, kind: str) -> list[Choice]:
    """What there is besides where the network reduces."""
    if kind in ROOTED or not collnet.is_possible(comm):
        return []
    found = [Choice("CollNetDirect", "Simple", *collnet.direct(comm, kind, architecture(comm.sm) >= HOPPER))]
    if kind == "all_reduce":
        found.append(Choice("CollNetChain", "Simple", *collnet.chain(comm)))
    return found + ([_nvls(comm, kind)] if comm.nvls_channels and len(comm.nvls.channels) > 1 else [])


def _nvls_tree(comm: Communicator) -> Choice:
    graph, row = comm.nvls, architecture(comm.sm)
    heads = len(graph.channels)
    inside = 2 * graph.intra_gb_per_s * NVLS_EFFICIENCY[row] * (heads - 1) / heads
    rate = min(inside, graph.inter_gb_per_s * (2 if comm.n_nodes <= 2 else 1), _NVLS_TREE[row][_scale(comm)])
    latency = NVLS_US + 2 * _log2(comm.n_nodes) * NVLS_TREE_NET_US
    return Choice("NVLSTree", "Simple", latency, heads * rate * comm.n_ranks / ring_steps("all_reduce", comm.n_ranks))


def _pat(comm: Communicator) -> Choice:
    latency = PAT_BASE_US + _log2(comm.n_nodes) * PAT_NET_US / 3.5 + 2.8 * comm.n_ranks
    return Choice("PAT", "Simple", latency, 0.75 * _bus(comm, comm.ring))


def _allows_ll128(comm: Communicator, choice: Choice) -> bool:
    """128-byte stores stay whole only on NVLink and on short ways to a NIC."""
    graph = comm.ring if choice.algorithm == "Ring" else comm.tree
    farthest = PathType.PXN if comm.sm >= 90 else PathType.PXB
    near = comm.n_nodes == 1 or graph.type_inter <= farthest
    return comm.sm >= 70 and graph.type_intra <= PathType.NVB and near


def _log2(count: int) -> int:
    return count.bit_length() - 1

"""CollNet: collectives that the network reduces, as InfiniBand switches with SHARP do; used if NCCL_COLLNET_ENABLE=1.

A head GPU for each NIC collects its part of the data in the node, hands it to the network and gets the result. NCCL has
it as CollNetDirect (all GPUs of a node to each head), CollNetChain (along a chain) and, with NVLink SHARP, NVLS between
nodes. Its estimates are taken for the time, too: no measurement here tells the three apart.

    CollNetDirect: heads x speed,  for all-reduce / ((1 + g / heads) / 2) / 2, x 0.85 from Hopper on
    CollNetChain:  channels x speed / 2
    NVLS:          heads x min(2 speed x efficiency x (heads - 1) / heads, speed between nodes) x n / (2 (n - 1))

g GPUs on a node, n in all. Needs the network's plugin (nccl-rdma-sharp-plugins) and two nodes.

Source: NVIDIA/nccl 2.30.7 src/graph/tuning.cc (ncclTopoTuneModel), search.cc (patterns COLLNET_DIRECT and NVLS).
"""

from __future__ import annotations

from cost_models.network.communicator import Communicator
from cost_models.topology.paths import PathType

_HOP_US, _CHAIN_HOP_US = 3.7, 2.8
_NET_US, _CHAIN_NET_US, _NVLS_NET_US = 31.0, 30.0, 18.0
_GATHER_US = 0.4


def is_possible(comm: Communicator) -> bool:
    """Whether NCCL would use the network's reduction for a group."""
    return comm.settings.collnet_enable and comm.n_nodes > 1


def direct(comm: Communicator, kind: str, hopper: bool) -> tuple[float, float]:
    """Latency (us) and bandwidth (GB/s) of CollNetDirect; 0 GB/s where it is not used."""
    graph, g = comm.collnet, comm.ranks_per_node
    heads = len(graph.channels)
    if not heads or graph.type_intra > PathType.NVB or (kind != "all_reduce" and g > heads):
        return 0.0, 0.0
    latency = 2 * (min(1, g - 1) * _HOP_US + _GATHER_US * (g - 1)) + _NET_US
    if kind != "all_reduce":
        return latency, g * min(graph.intra_gb_per_s, 0.9 * graph.inter_gb_per_s)
    shared = (1 + g / heads) / 2
    return latency, heads * graph.intra_gb_per_s / shared * (0.85 if hopper else 1.0) / 2


def chain(comm: Communicator) -> tuple[float, float]:
    """Latency and bandwidth of CollNetChain, which does all-reduce only."""
    latency = 2 * (comm.ranks_per_node - 1) * _CHAIN_HOP_US + _CHAIN_NET_US
    return latency, len(comm.ring.channels) * comm.ring.intra_gb_per_s / 2


def nvls_net_us() -> float:
    """What the network adds to the latency of NVLS."""
    return _NVLS_NET_US

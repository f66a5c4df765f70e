"""A topology said in plain data, as ``attnsim topology`` prints it: one node in full, the cluster in numbers."""

from __future__ import annotations

from typing import Any

from cost_models.topology.cluster import ClusterTopology
from cost_models.topology.links import GB_PER_S, LinkType
from cost_models.topology.machine import Machine
from cost_models.topology.nics import nets_of
from cost_models.topology.paths import DeviceKind, PathType

FABRIC_LINKS = 64
"""Of the links between leaves and spine that are listed."""


def describe_topology(topology: ClusterTopology, node: int = 0) -> dict[str, Any]:
    """Facts of a topology that JSON can hold; rates in GB/s (10^9 bytes) per direction.

    Parameters
    ----------
    topology : what to describe.
    node : the node whose devices are listed.

    >>> from cost_models.topology import load_topology
    >>> facts = describe_topology(load_topology("h200-shm-pair"))
    >>> facts["gpu"], facts["matrix"][0][1]
    ('h200-sxm', {'path_type': 'PHB', 'kind': 'shm', 'gb_per_s': 30.0})
    """
    machine = topology.transports[topology.machine_of_node[node]].machine
    ranks = [node * topology.ranks_per_node + local for local in range(topology.ranks_per_node)]
    return {
        "name": topology.name,
        "source": topology.source,
        "gpu": topology.gpu,
        "nodes": topology.n_nodes,
        "ranks": topology.n_ranks,
        "ranks_per_node": topology.ranks_per_node,
        "gpus_per_node": topology.gpus_per_node,
        "numa_nodes": [machine.devices[cpu].label for cpu in machine.devices_of(DeviceKind.CPU)],
        "fabric": _fabric(topology),
        "gpus": [_gpu(machine, local, rank) for local, rank in enumerate(ranks)],
        "nics": [_nic(machine, index, node) for index in range(len(machine.nets))],
        "matrix": [[_pair(topology, one, other) for other in ranks] for one in ranks],
        "links": _links(topology, node),
        "warnings": list(topology.warnings),
    }


def _links(topology: ClusterTopology, node: int) -> list[dict[str, Any]]:
    """Links of a node, to its leaves included, and the first ones of the fabric, by the names that faults take."""
    numbering = topology.numbering
    of_node, fabric = numbering.links_of_node(node), range(numbering.spine_link(0), len(topology.links))
    return [
        {"name": link.name, "type": link.type.name, "gb_per_s": link.capacity_bytes_per_s / GB_PER_S}
        for number in [*of_node, *fabric[:FABRIC_LINKS]]
        for link in [topology.links[number]]
    ]


def _fabric(topology: ClusterTopology) -> dict[str, Any] | None:
    if topology.fabric is None:
        return None
    rates = topology.numbering.leaf_bytes_per_s
    return {
        "kind": topology.fabric.kind,
        "leaves": len(rates),
        "oversubscription": topology.fabric.oversubscription,
        "leaf_to_spine_gb_per_s": max(rates) / GB_PER_S,
    }


def _gpu(machine: Machine, local: int, rank: int) -> dict[str, Any]:
    device = machine.gpus[local]
    nearest = nets_of(machine, local)[:1]
    paths = machine.paths_from(device)
    return {
        "rank": rank,
        "address": machine.devices[device].label,
        "pcie_gb_per_s": _rate(machine, device, LinkType.PCI),
        "nvlink_gb_per_s": _rate(machine, device, LinkType.NVL),
        "nics": [
            {"name": machine.nets[net].name, "path_type": paths[machine.nets[net].device].type.name} for net in nearest
        ],
    }


def _rate(machine: Machine, device: int, kind: LinkType) -> float:
    rates = (link.capacity_bytes_per_s for _, link in machine.outgoing[device] if link.type is kind)
    return sum(rates, 0.0) / GB_PER_S


def _nic(machine: Machine, index: int, node: int) -> dict[str, Any]:
    net = machine.nets[index]
    return {
        "id": f"nic:{node}.{machine.devices[net.device].label}",
        "name": net.name,
        "gb_per_s": net.bytes_per_s / GB_PER_S,
        "transport": "socket" if net.socket else "rdma",
        "gpu_direct": net.gdr,
    }


def _pair(topology: ClusterTopology, one: int, other: int) -> dict[str, Any]:
    if one == other:
        return {"path_type": PathType.LOC.name, "kind": "local", "gb_per_s": None}
    route = topology.route(one, other)
    return {"path_type": route.path_type.name, "kind": route.kind, "gb_per_s": route.bytes_per_s / GB_PER_S}

"""The description of a topology as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cost_models.topology.cluster import ClusterTopology
from cost_models.topology.describe import describe_topology
from cost_models.topology.spoken import spoken_link

if TYPE_CHECKING:
    from rich.table import Table


def topology_tables(topology: ClusterTopology) -> list[Table]:
    """Tables of the cluster, the GPUs, the NICs (if any) and the GPU pairs of the first node.

    >>> from cost_models.topology import load_topology
    >>> [table.title for table in topology_tables(load_topology("h200-shm-pair"))]
    ['Cluster', 'GPUs of one node, GB/s per direction', 'Paths between GPUs, GB/s per direction']
    """
    facts = describe_topology(topology)
    tables = [_cluster(facts), _gpus(facts), _nics(facts), _matrix(facts)]
    return [table for table in tables if table.row_count]


def link_table(topology: ClusterTopology) -> Table:
    """Links of the first node and of the fabric, by the names that ``--slow-link`` and ``--lost`` take.

    >>> from cost_models.topology import load_topology
    >>> link_table(load_topology("h200-nvlink-pair")).row_count > 4
    True
    """
    table = _table("Links of node 0 and of the fabric, each direction by itself", "name", "", "type", "GB/s")
    for link in describe_topology(topology)["links"]:
        table.add_row(link["name"], spoken_link(link["name"]), link["type"], f"{link['gb_per_s']:.4g}")
    return table


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    return Table(*columns, title=title, title_justify="left")


def _cluster(facts: dict[str, Any]) -> Table:
    table = _table("Cluster", "", "")
    fabric = facts["fabric"]
    rows = {
        "topology": facts["name"],
        "source": facts["source"],
        "GPU": facts["gpu"] or "unknown",
        "ranks": f"{facts['ranks']} = {facts['nodes']} x {facts['ranks_per_node']}",
        "NUMA nodes": ", ".join(facts["numa_nodes"]),
        "fabric": f"{fabric['kind']}, leaf switches: {fabric['leaves']}, {fabric['oversubscription']:g}:1"
        if fabric
        else "one node",
    }
    for key, value in rows.items():
        table.add_row(key, str(value))
    return table


def _gpus(facts: dict[str, Any]) -> Table:
    table = _table("GPUs of one node, GB/s per direction", "rank", "address", "PCIe", "NVLink", "NIC", "path")
    for gpu in facts["gpus"]:
        nics, paths = (", ".join(nic[key] for nic in gpu["nics"]) for key in ("name", "path_type"))
        rates = (f"{gpu[key]:.4g}" for key in ("pcie_gb_per_s", "nvlink_gb_per_s"))
        table.add_row(str(gpu["rank"]), gpu["address"], *rates, nics, paths)
    return table


def _nics(facts: dict[str, Any]) -> Table:
    table = _table("NICs of one node, GB/s per direction", "id", "name", "GB/s", "transport", "GPUDirect")
    for nic in facts["nics"]:
        direct = "yes" if nic["gpu_direct"] else "no"
        table.add_row(nic["id"], nic["name"], f"{nic['gb_per_s']:.4g}", nic["transport"], direct)
    return table


def _matrix(facts: dict[str, Any]) -> Table:
    ranks = [str(gpu["rank"]) for gpu in facts["gpus"]]
    table = _table("Paths between GPUs, GB/s per direction", "", *ranks)
    for rank, row in zip(ranks, facts["matrix"], strict=True):
        cells = ("-" if pair["kind"] == "local" else f"{pair['path_type']} {pair['gb_per_s']:.3g}" for pair in row)
        table.add_row(rank, *cells)
    return table

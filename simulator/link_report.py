"""Drawings of a topology with the load of its links, for HTML reports."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cost_models.network.bandwidth import BandwidthReport, PatternBandwidth
from cost_models.network.tables import describe_bandwidth
from cost_models.topology import ClusterTopology, describe_topology, spoken_device, spoken_link
from cost_models.topology.drawing import DrawnLink, draw_node
from cost_models.topology.links import GB_PER_S
from cost_models.topology.spoken import short_device
from traces.figures.topology import plot_topology
from traces.report import Section, write_report

Figure = Any

DRAWN_GPUS = 16
"""GPUs of a node up to which a drawing can be read."""


def draw_loads(topology: ClusterTopology, shares: NDArray[np.float64], title: str, note: str) -> Figure:
    """The first node, its links coloured by the share of their capacity (or time) that is used.

    Parameters
    ----------
    shares : by link of the topology.
    """
    drawing = draw_node(topology)
    devices = [
        {**asdict(each), "label": short_device(each.name), "text": spoken_device(each.name, each.kind)}
        for each in drawing.devices
    ]
    links = [
        {"source": link.source, "target": link.target, "load": float(shares[link.index]),
         "text": _link_text(link, float(shares[link.index]))}
        for link in drawing.links
    ]  # fmt: skip
    return plot_topology(devices, links, title, note)


def busiest_link(topology: ClusterTopology, shares: NDArray[np.float64]) -> str:
    """The link with the largest share, in words."""
    index = int(np.argmax(shares))
    if not shares[index]:
        return "no link is used"
    return f"the busiest is {spoken_link(topology.links[index].name)}, {shares[index]:.1%}"


def _link_text(link: DrawnLink, share: float) -> str:
    """In words, and by the name that options such as ``--slow-link`` take."""
    name = f"{link.source}->{link.target}"
    return f"{spoken_link(name)}\n{share:.1%} of {link.capacity_bytes_per_s / GB_PER_S:.4g} GB/s\n{name}"


def write_topology_report(
    path: str | os.PathLike[str], topology: ClusterTopology, report: BandwidthReport | None
) -> None:
    """Write the page of a topology: facts, bandwidths, and a drawing for each pattern; whole or not at all."""
    facts = describe_topology(topology)
    lists = ("gpus", "nics", "matrix", "warnings", "numa_nodes")
    sections = [Section("Topology", [{name: value for name, value in facts.items() if name not in lists}])]
    sections += [Section("GPUs", [[_gpu_row(each) for each in facts["gpus"]]])]
    sections += [Section("NICs", [facts["nics"]])] if facts["nics"] else []
    sections += _bandwidth_sections(topology, report)
    sections += [Section("Warnings", [facts["warnings"]])] if facts["warnings"] else []
    write_report(path, f"Topology {topology.name}", sections)


def _gpu_row(facts: dict[str, Any]) -> dict[str, Any]:
    """A GPU with its ports in words."""
    nics = ", ".join(f"{each['name']} ({each['path_type']})" for each in facts.get("nics") or ())
    return facts | {"nics": nics or "none"}


def _bandwidth_sections(topology: ClusterTopology, report: BandwidthReport | None) -> list[Section]:
    if topology.ranks_per_node > DRAWN_GPUS:
        figures: list[Figure] = []
    elif report is None:
        idle = np.zeros(len(topology.links))
        figures = [draw_loads(topology, idle, "Wiring of one node", "Each direction of a connection is a line.")]
    else:
        figures = [_pattern_figure(topology, each) for each in report.patterns]
    sections = [Section("", [figure]) for figure in figures]
    if report is not None:
        described = describe_bandwidth(report)
        patterns = [_pattern_row(each) for each in report.patterns]
        sections += [Section("All GPUs at once", [patterns]), Section("NCCL", [described["channels"]])]
        sections.append(Section("One GPU to another, GB/s", [_matrix_rows(described)]))
    return sections


def _pattern_row(pattern: PatternBandwidth) -> dict[str, str]:
    return {
        "pattern": pattern.pattern.replace("_", "-"),
        "sent by each GPU": f"{pattern.bytes_per_s / GB_PER_S:.4g} GB/s",
        "limited by": spoken_link(pattern.bottleneck),
        "of its capacity": f"{pattern.share:.0%}",
    }


def _pattern_figure(topology: ClusterTopology, pattern: PatternBandwidth) -> Figure:
    name = pattern.pattern.replace("_", "-")
    note = (
        f"{pattern.bytes_per_s / GB_PER_S:.3g} GB/s sent by each GPU, limited by "
        f"{spoken_link(pattern.bottleneck)}. The first node."
    )
    return draw_loads(topology, pattern.loads, f"Load of links: {name} over {topology.n_ranks} GPUs", note)


def _matrix_rows(described: dict[str, Any]) -> Sequence[dict[str, object]]:
    ranks = described["ranks"]
    return [
        {
            "from": rank,
            **{
                f"to {other}": round(pair["gb_per_s"], 1) if pair else ""
                for other, pair in zip(ranks, row, strict=True)
            },
        }
        for rank, row in zip(ranks, described["matrix"], strict=True)
    ]

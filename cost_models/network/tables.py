"""A bandwidth report in plain data, and as tables for the terminal; rates in GB/s (10^9 bytes) per direction."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cost_models.network.bandwidth import BandwidthReport, PairBandwidth
from cost_models.topology.links import GB_PER_S
from cost_models.topology.spoken import spoken_link

if TYPE_CHECKING:
    from rich.table import Table

_TERMINAL_RANKS, _COLUMNS = 16, 8


def describe_bandwidth(report: BandwidthReport) -> dict[str, Any]:
    """Facts of a report that JSON can hold.

    >>> from cost_models.hardware import load_hardware
    >>> from cost_models.network.bandwidth import measure_bandwidth
    >>> from cost_models.topology import load_topology
    >>> facts = describe_bandwidth(measure_bandwidth(load_topology("h200-shm-pair"), load_hardware("h200-sxm")))
    >>> facts["matrix"][0][1]["kind"], facts["matrix"][0][0]
    ('shm', None)
    """
    return {
        "ranks": list(report.ranks),
        "matrix": [[_pair(report.pairs.get((one, other))) for other in report.ranks] for one in report.ranks],
        "patterns": [
            {
                "pattern": each.pattern,
                "gb_per_s": each.bytes_per_s / GB_PER_S,
                "bottleneck": each.bottleneck,
                "bottleneck_share": each.share,
            }
            for each in report.patterns
        ],
        "channels": asdict(report.channels),
    }


def _pair(pair: PairBandwidth | None) -> dict[str, Any] | None:
    if pair is None:
        return None
    return {"kind": pair.kind, "gb_per_s": pair.bytes_per_s / GB_PER_S, "bottleneck": pair.bottleneck}


def bandwidth_tables(report: BandwidthReport) -> list[Table]:
    """Tables of the matrix (where it fits a terminal), the bottlenecks, the patterns and NCCL's channels."""
    tables = [*_matrix(report), _bottlenecks(report), _patterns(report), _channels(report)]
    return [table for table in tables if table.row_count]


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    return Table(*columns, title=title, title_justify="left")


def _matrix(report: BandwidthReport) -> list[Table]:
    """In blocks of columns; none where there are many GPUs: JSON and the page have all."""
    if len(report.ranks) > _TERMINAL_RANKS:
        return []
    tables = []
    for first in range(0, len(report.ranks), _COLUMNS):
        others = report.ranks[first : first + _COLUMNS]
        table = _table("One GPU (row) to another (column), alone, GB/s", "", *map(str, others))
        for one in report.ranks:
            pairs = (report.pairs.get((one, other)) for other in others)
            table.add_row(str(one), *(f"{pair.bytes_per_s / GB_PER_S:.3g}" if pair else "-" for pair in pairs))
        tables.append(table)
    return tables


def _bottlenecks(report: BandwidthReport) -> Table:
    """Pairs by the kind of way and rate, with the link that limits the first of them."""
    table = _table("What limits them", "way", "GB/s", "pairs", "slowest link of the first pair")
    groups: dict[tuple[str, str], list[tuple[tuple[int, int], str]]] = {}
    for pair, found in report.pairs.items():
        groups.setdefault((found.kind, f"{found.bytes_per_s / GB_PER_S:.3g}"), []).append((pair, found.bottleneck))
    for (kind, rate), pairs in groups.items():
        (one, other), link = pairs[0]
        table.add_row(kind, rate, str(len(pairs)), f"{spoken_link(link)} ({one} to {other})")
    return table


PATTERN_NAMES = {"ring": "ring, 1 GiB a hop", "ring_of_16_mib": "ring, 16 MiB a hop"}


def _patterns(report: BandwidthReport) -> Table:
    table = _table("All GPUs at once, GB/s that each sends", "pattern", "GB/s", "limited by", "of its capacity")
    for each in report.patterns:
        name = PATTERN_NAMES.get(each.pattern, each.pattern.replace("_", "-"))
        table.add_row(name, f"{each.bytes_per_s / GB_PER_S:.3g}", spoken_link(each.bottleneck), f"{each.share:.0%}")
    return table


def _channels(report: BandwidthReport) -> Table:
    found = report.channels
    table = _table("Channels that NCCL finds (each holds one SM)", "", "")
    speeds = f"{found.intra_gb_per_s:g} GB/s"
    if found.nodes > 1:
        speeds += f" inside a node, {found.inter_gb_per_s:g} between nodes"
    table.add_row("rings", f"{found.rings} of {speeds}, over {found.path_type}")
    table.add_row("of a collective", f"{found.collective}; with NVLink SHARP {found.nvls or 'not available'}")
    table.add_row("of sends", f"{found.sends} to all peers, {found.per_peer} to one (1 GiB)")
    return table

"""Clusters as NCCL sees them: devices, links, and the route between any two ranks.

Interface: :func:`load_topology` (presets, NCCL XML, ``nvidia-smi topo -m``), :class:`ClusterTopology`, :class:`Route`,
:func:`describe_topology`; with faults :func:`slow_links`, :func:`lose`. Bandwidths are bytes per second and direction,
times seconds.
"""

from cost_models.topology.cluster import ClusterTopology
from cost_models.topology.describe import describe_topology
from cost_models.topology.faults import lose, slow_links
from cost_models.topology.links import Link, LinkType
from cost_models.topology.load import load_topology
from cost_models.topology.nccl_settings import (
    NcclSettings,
    nccl_settings_of,
    parse_nccl_assignments,
    parse_nccl_settings,
)
from cost_models.topology.paths import PathType
from cost_models.topology.presets import PRESETS
from cost_models.topology.routes import Route
from cost_models.topology.spoken import spoken_device, spoken_link
from cost_models.topology.tables import topology_tables

PRESET_NAMES = tuple(PRESETS)

__all__ = [
    "PRESET_NAMES",
    "ClusterTopology",
    "Link",
    "LinkType",
    "NcclSettings",
    "PathType",
    "Route",
    "describe_topology",
    "load_topology",
    "lose",
    "nccl_settings_of",
    "parse_nccl_assignments",
    "parse_nccl_settings",
    "slow_links",
    "spoken_device",
    "spoken_link",
    "topology_tables",
]

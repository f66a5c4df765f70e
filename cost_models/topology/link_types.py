"""What joins GPUs of one host by what NCCL is told: the link types that are measured and fitted.

| link type | NCCL's variables | two GPUs |
|---|---|---|
| nvlink | none | h200-nvlink-pair |
| channels-1, -2, -4 | NCCL_MAX_NCHANNELS, NCCL_MAX_CTAS | h200-nvlink-pair:channels=1, 2, 4 |
| shm | NCCL_P2P_DISABLE | h200-shm-pair |
| socket | NCCL_P2P_DISABLE, NCCL_SHM_DISABLE | h200-socket-pair |

Pairs may be of H100s as well: links and what NCCL makes of them are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cost_models.topology.cluster import ClusterTopology
from cost_models.topology.load import load_topology
from cost_models.topology.nccl_settings import NcclSettings
from cost_models.topology.presets import PRESETS
from traces.errors import InputError

PAIRS = {
    "nvlink": "h200-nvlink-pair", "channels-1": "h200-nvlink-pair:channels=1",
    "channels-2": "h200-nvlink-pair:channels=2", "channels-4": "h200-nvlink-pair:channels=4",
    "shm": "h200-shm-pair", "socket": "h200-socket-pair",
}  # fmt: skip
"""Two GPUs of one host, by link type."""
_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "nvlink": {}, "channels-1": {"max_nchannels": 1, "max_ctas": 1}, "channels-2": {"max_nchannels": 2, "max_ctas": 2},
    "channels-4": {"max_nchannels": 4, "max_ctas": 4}, "shm": {"p2p_disable": True},
    "socket": {"p2p_disable": True, "shm_disable": True},
}  # fmt: skip


def link_type_of(settings: NcclSettings, kind: str = "nvlink") -> str:
    """Link type of GPUs whose NCCL has such settings.

    Parameters
    ----------
    kind : of the route between them (``Route.kind``); without it GPUs have NVLink, unless NCCL must not use it.

    >>> link_type_of(NcclSettings(max_ctas=2, max_nchannels=2)), link_type_of(NcclSettings(p2p_disable=True))
    ('channels-2', 'shm')
    """
    if kind != "nvlink":
        return kind
    if settings.p2p_disable:
        return "socket" if settings.shm_disable else "shm"
    channels = f"channels-{min(settings.max_nchannels, settings.max_ctas)}"
    return channels if channels in PAIRS else "nvlink"


def kind_of(link: str) -> str:
    """Kind of the route that GPUs of a link type have (``Route.kind``).

    >>> kind_of("channels-2"), kind_of("shm")
    ('nvlink', 'shm')
    """
    return link if link in ("shm", "socket") else "nvlink"


def host_topology(ranks: int, gpu: str, link: str, nccl: NcclSettings, node: str | None = None) -> ClusterTopology:
    """GPUs of one host over a link type; two of them are a measured pair.

    Parameters
    ----------
    gpu : their hardware name.
    nccl : other settings; the link type's are put in.
    node : preset or file of the host where there are not two; default the first preset with such GPUs.

    Raises
    ------
    InputError
        Where no preset has such GPUs.

    >>> host_topology(2, "h200-sxm", "shm", NcclSettings()).route(0, 1).kind
    'shm'
    """
    settings = replace(nccl, **_SETTINGS[link])
    if ranks == 2:
        return load_topology(PAIRS[link], 2, 1, gpu, settings)
    found = node or next((name for name, each in PRESETS.items() if gpu in (each.gpu, *each.other_gpus)), None)
    if found is None:
        raise InputError(f"no preset topology has {gpu} GPUs", remedy="give --topology")
    return load_topology(found, ranks, 1, gpu, settings)

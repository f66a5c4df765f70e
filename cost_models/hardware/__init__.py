"""GPUs as their specifications and what kernels, hosts and links really reach on them; a source for every number.

Interface: :func:`load_hardware` (names in :data:`HARDWARE_NAMES`, or a TOML file), :class:`HardwareProfile` and its
parts. Loaded on first use: pydantic takes longer to import than all the rest.

>>> from cost_models.hardware import load_hardware
>>> load_hardware("h200-sxm").sm_count
132
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cost_models.hardware.attention import AttentionCurve, KernelPass
    from cost_models.hardware.host import HostCosts
    from cost_models.hardware.links import LinkCurve
    from cost_models.hardware.load import load_hardware
    from cost_models.hardware.profile import HardwareProfile
    from cost_models.hardware.sources import Source

HARDWARE_NAMES = (
    "a100-40", "a100-80", "a800", "h100-sxm", "h800", "h200-sxm", "b200", "l20", "l40s", "rtx4090", "h100-nvlink-pair",
)  # fmt: skip
GPU_OF = {"h100-nvlink-pair": "h100-sxm"}
"""The GPU of a profile that is of a host: two of them with measured links."""

_MODULES = {
    "AttentionCurve": "attention",
    "HardwareProfile": "profile",
    "HostCosts": "host",
    "KernelPass": "attention",
    "LinkCurve": "links",
    "Source": "sources",
    "load_hardware": "load",
}

__all__ = [
    "GPU_OF",
    "HARDWARE_NAMES",
    "AttentionCurve",
    "HardwareProfile",
    "HostCosts",
    "KernelPass",
    "LinkCurve",
    "Source",
    "load_hardware",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"cost_models.hardware.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'cost_models.hardware' has no attribute {name!r}")

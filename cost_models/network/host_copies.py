"""Seconds of copies between GPUs' memories and those of their hosts, by copy engines.

    t = latency + bytes / rate,    rate = min over links of factor capacity / GPUs that cross it

All GPUs of a node copy at the same time, as ranks of one Program do, and have their even share of what they cross
together, on their ways to the nearest memory. Both directions run at once. The factor is what a copy engine reaches of
the rate that NCCL takes a PCIe link for. Links of the host have what they sustain: its memory twice what it has each
way, because a copy either reads or writes there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cost_models.topology.links import LinkType
from cost_models.topology.paths import DeviceKind, Path
from traces.errors import InputError

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile
    from cost_models.topology import ClusterTopology
    from cost_models.topology.machine import Machine

FloatArray = NDArray[np.float64]


def estimate_host_copy_s(
    topology: ClusterTopology, profile: HardwareProfile, n_bytes: int | NDArray[np.int64]
) -> FloatArray:  # fmt: skip
    """Time in which each rank copies its bytes to or from its host, all ranks at once.

    Raises
    ------
    InputError
        Where a GPU reaches no CPU.

    >>> from cost_models.hardware import load_hardware
    >>> from cost_models.topology import load_topology
    >>> h100 = load_hardware("h100-sxm")
    >>> [round(1 / float(estimate_host_copy_s(load_topology(name, 8), h100, 10**9)[0]), 1)
    ...  for name in ("dgx-h100", "pcie-8x")]
    [55.2, 13.8]
    """
    rate = _rates(topology, profile.copies.pcie, profile.copies.c2c)
    size = np.broadcast_to(np.asarray(n_bytes, dtype=np.float64), rate.shape)
    return np.where(size > 0, profile.copies.latency_s + size / rate, 0.0)


@lru_cache(maxsize=16)
def _rates(topology: ClusterTopology, pcie: float, c2c: float) -> FloatArray:
    """Bytes per second of each rank."""
    found: dict[tuple[int | float, ...], FloatArray] = {}
    parts, capacities = [], topology.link_capacities_bytes_per_s
    factors = {LinkType.PCI: pcie, LinkType.C2C: c2c, LinkType.MEM: 2.0}
    for node, machine in enumerate(topology.machine_of_node):
        start = topology.numbering.start(node)
        links = topology.machines[machine].links
        own = tuple(capacities[start : start + len(links)].tolist())
        key = (machine, *own)
        if key not in found:
            found[key] = _rates_of(topology.machines[machine], own, factors)
        parts.append(found[key])
    return np.concatenate(parts)


def _rates_of(machine: Machine, capacities: Sequence[float], factors: dict[LinkType, float]) -> FloatArray:
    paths = [_to_host(machine, gpu) for gpu in machine.gpus]
    users = Counter(link for path in paths for link in path.links)
    return np.array([
        min(capacities[link] / users[link] * factors.get(machine.links[link].type, 1.0) for link in path.links)
        for path in paths
    ])  # fmt: skip


def _to_host(machine: Machine, gpu: int) -> Path:
    reached = machine.paths_from(gpu)
    ends = machine.devices_of(DeviceKind.MEM) or machine.devices_of(DeviceKind.CPU)
    paths = [reached[end] for end in ends if end in reached]
    if not paths:
        raise InputError("a GPU of the topology reaches no host memory", remedy="leave offload out")
    return min(paths, key=lambda path: (path.type, -path.bytes_per_s, len(path.links)))

"""One machine: devices and links, the same object shared by all nodes that are alike.

Devices are numbered; names as users see them (``gpu:3``, ``cpu:0.1``) come from the cluster, which knows the node's
number and its first rank. All NVSwitches of a machine are one device, as in NCCL: no contention inside a switch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from cost_models.topology.gpus import GpuModel
from cost_models.topology.links import LATENCY_S, LinkType
from cost_models.topology.paths import DeviceKind, LocalLink, Path, find_paths


@dataclass(frozen=True)
class Device:
    """A device; ``label`` is its PCI address, NUMA id or number, as fits its kind."""

    kind: DeviceKind
    label: str


@dataclass(frozen=True)
class Net:
    """A network port that ranks may use.

    ``gdr``: GPUs read and write it directly; ``socket``: an ordinary interface, reached by TCP; ``rail``: the leaf
    switch it is wired to in a rail-optimised fabric.
    """

    device: int
    name: str
    bytes_per_s: float
    rail: int
    gdr: bool = True
    socket: bool = False
    latency_s: float = LATENCY_S[LinkType.NET]


@dataclass(frozen=True, eq=False)
class Machine:
    """Devices, links and GPUs (in local rank order) of one node.

    ``links`` come in pairs, 2k and its reverse 2k + 1. ``amd``: AMD CPUs, on which NCCL lets two GPUs talk directly
    over any PCIe path; ``intel``: Intel ones, through whose host bridge direct transfers cost more. ``pcie_p2p``: False
    where the driver forbids GPUs to talk over PCIe. ``sm``: compute capability of the GPUs times 10, 0 if unknown.
    ``host_numa``: the NUMA node to which all ranks' processes are bound, None where each runs near its GPU.
    """

    devices: tuple[Device, ...]
    links: tuple[LocalLink, ...]
    gpus: tuple[int, ...]
    nets: tuple[Net, ...]
    amd: bool = False
    pcie_p2p: bool = True
    intel: bool = False
    sm: int = 0
    host_numa: str | None = None

    @cached_property
    def kinds(self) -> tuple[DeviceKind, ...]:
        """Kind of each device."""
        return tuple(device.kind for device in self.devices)

    @cached_property
    def outgoing(self) -> tuple[tuple[tuple[int, LocalLink], ...], ...]:
        """For each device, the links that leave it, with their numbers."""
        table: list[list[tuple[int, LocalLink]]] = [[] for _ in self.devices]
        for number, link in enumerate(self.links):
            table[link.source].append((number, link))
        return tuple(tuple(links) for links in table)

    @cached_property
    def _paths(self) -> dict[int, dict[int, Path]]:
        return {}

    def paths_from(self, device: int) -> dict[int, Path]:
        """Best path from a device to every other; searched once."""
        if device not in self._paths:
            self._paths[device] = find_paths(self.kinds, self.outgoing, device)
        return self._paths[device]

    def memory_loop(self, cpu: int) -> tuple[int, int]:
        """Numbers of the links into a CPU's memory and back."""
        into = next(number for number, link in self.outgoing[cpu] if link.type is LinkType.MEM)
        return into, into ^ 1

    def devices_of(self, kind: DeviceKind) -> tuple[int, ...]:
        """Numbers of the devices of a kind."""
        return tuple(number for number, found in enumerate(self.kinds) if found is kind)

    def take(self, count: int) -> Machine:
        """The machine with only its first ``count`` GPUs, as under CUDA_VISIBLE_DEVICES."""
        return rebuild(self, frozenset(self.gpus[count:])) if count < len(self.gpus) else self


def rebuild(machine: Machine, drop: frozenset[int], capacities: Mapping[int, float] | None = None) -> Machine:
    """The machine without some devices, with other capacities (bytes per second) for some links."""
    kept = [number for number in range(len(machine.devices)) if number not in drop]
    new = {old: number for number, old in enumerate(kept)}
    links = tuple(
        replace(
            link,
            source=new[link.source],
            target=new[link.target],
            capacity_bytes_per_s=(capacities or {}).get(number, link.capacity_bytes_per_s),
        )
        for number, link in enumerate(machine.links)
        if link.source in new and link.target in new
    )
    return replace(
        machine,
        devices=tuple(machine.devices[number] for number in kept),
        links=links,
        gpus=tuple(new[gpu] for gpu in machine.gpus if gpu in new),
        nets=tuple(replace(net, device=new[net.device]) for net in machine.nets if net.device in new),
    )


@dataclass
class MachineBuilder:
    """Collects devices and connections; parallel links of one type become one, as in NCCL."""

    devices: list[Device] = field(default_factory=list)
    links: dict[tuple[int, int, LinkType], tuple[float, float]] = field(default_factory=dict)

    def add(self, kind: DeviceKind, label: str) -> int:
        """New device; its number."""
        self.devices.append(Device(kind, label))
        return len(self.devices) - 1

    def connect(self, one: int, other: int, link: LinkType, bytes_per_s: float, latency_s: float | None = None) -> None:
        """Connect two devices both ways, or widen their connection of that type."""
        key = (min(one, other), max(one, other), link)
        capacity, latency = self.links.get(key, (0.0, LATENCY_S[link] if latency_s is None else latency_s))
        self.links[key] = (capacity + bytes_per_s, latency)

    def build(self, gpus: list[int], nets: list[Net], amd: bool, gpu_model: GpuModel | None) -> Machine:
        """The finished machine."""
        links = []
        for (one, other, link), (capacity, latency) in self.links.items():
            links.append(LocalLink(one, other, link, capacity, latency))
            links.append(LocalLink(other, one, link, capacity, latency))
        p2p = gpu_model is None or gpu_model.pcie_p2p
        return Machine(tuple(self.devices), tuple(links), tuple(gpus), tuple(nets), amd, p2p)

"""A host as files describe it: CPUs, PCI tree, GPUs, ports; and the machine that follows from it.

The readers of NCCL XML and of ``nvidia-smi topo -m`` and the presets all write a :class:`Host`; bandwidths are already
numbers here, and every gap in the file has been filled (with a warning) by its reader.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import combinations

from cost_models.topology.gpus import GpuModel
from cost_models.topology.host_memory import numa_nodes_per_socket, socket_bytes_per_s
from cost_models.topology.links import (
    DIRECT_NVLINK_LATENCY_S,
    LATENCY_S,
    LOC_BYTES_PER_S,
    SOCKET_LATENCY_S,
    LinkType,
    sys_bytes_per_s,
)
from cost_models.topology.machine import Machine, MachineBuilder, Net
from cost_models.topology.paths import DeviceKind

NVSWITCH = "nvswitch"
"""Target of an NVLink that ends at the NVSwitches."""
OWN_CPU = "cpu"
"""Target of an NVLink that ends at the GPU's own CPU (POWER)."""


@dataclass
class Port:
    """A port of a NIC."""

    name: str
    bytes_per_s: float
    gdr: bool = True
    socket: bool = False
    latency_s: float = 0.0
    rail: int | None = None


@dataclass
class Gpu:
    """What sits on a GPU's PCI device: its order among the ranks, NVLinks by target in bytes per second, C2C."""

    order: tuple[int, ...] = ()
    sm: int | None = None
    nvlinks: dict[str, float] = field(default_factory=dict)
    c2c_bytes_per_s: float = 0.0


@dataclass
class PciDevice:
    """A PCI device and its link to its parent: a GPU, a NIC (ports) or else a switch."""

    busid: str
    link_bytes_per_s: float
    children: list[PciDevice] = field(default_factory=list)
    gpu: Gpu | None = None
    ports: list[Port] = field(default_factory=list)


@dataclass
class Cpu:
    """A NUMA node. CPUs of one ``board`` are joined pairwise; ``ports`` are NICs without a PCI device."""

    label: str
    arch: str = "x86_64"
    vendor: str = ""
    family: int = 0
    model: int = 0
    board: int = 0
    children: list[PciDevice] = field(default_factory=list)
    ports: list[Port] = field(default_factory=list)

    @property
    def sys_bytes_per_s(self) -> float:
        """Capacity to another NUMA node of the board."""
        return sys_bytes_per_s(self.arch, self.vendor, self.family, self.model)

    @property
    def socket_memory_bytes_per_s(self) -> float:
        """What the memory of this CPU's socket sustains."""
        return socket_bytes_per_s(self.arch, self.vendor, self.family, self.model)


@dataclass
class Host:
    """All NUMA nodes of a host and the model of its GPUs.

    ``switch_links`` join PCI switches beside the tree; ``loopback_bytes_per_s`` is what each GPU gets from the host's
    own network stack, where that is how GPUs of different boards talk.
    """

    cpus: list[Cpu]
    gpu_model: GpuModel | None = None
    switch_links: list[tuple[str, str]] = field(default_factory=list)
    loopback_bytes_per_s: float = 0.0

    def pci_devices(self) -> list[PciDevice]:
        """Every PCI device, parents first."""
        found = [device for cpu in self.cpus for device in cpu.children]
        for device in found:  # grows while walked
            found.extend(device.children)
        return found

    def gpus(self) -> list[PciDevice]:
        """PCI devices that are GPUs, in rank order."""
        found = [device for device in self.pci_devices() if device.gpu is not None]
        return sorted(found, key=lambda device: (device.gpu.order if device.gpu else (), device.busid))


def build_machine(host: Host) -> Machine:
    """Devices and links of a host, with all its GPUs in rank order."""
    return _Assembly(host).machine()


class _Assembly:
    def __init__(self, host: Host) -> None:
        self.host = host
        self.builder = MachineBuilder()
        self.number: dict[str, int] = {}  # of PCI devices, by bus id
        self.cpu_of: dict[str, int] = {}  # of GPUs, by bus id
        self.nets: list[Net] = []

    def machine(self) -> Machine:
        for cpu in self.host.cpus:
            self._add_cpu(cpu)
        self._join_cpus()
        gpus = self.host.gpus()
        self._add_nvlinks(gpus)
        for one, other in self.host.switch_links:
            if one in self.number and other in self.number:
                self.builder.connect(self.number[one], self.number[other], LinkType.LOC, LOC_BYTES_PER_S)
        numbers = [self.number[gpu.busid] for gpu in gpus]
        if self.host.loopback_bytes_per_s:
            self._add_loopback(numbers)
        self._add_memory()
        vendors = {cpu.vendor for cpu in self.host.cpus}
        machine = self.builder.build(numbers, self.nets, "AuthenticAMD" in vendors, self.host.gpu_model)
        return replace(machine, intel="GenuineIntel" in vendors, sm=self._sm(gpus))

    def _sm(self, gpus: list[PciDevice]) -> int:
        """Least compute capability: as the file says, else by the model."""
        model = self.host.gpu_model.sm if self.host.gpu_model else 0
        return min((gpu.gpu.sm or model for gpu in gpus if gpu.gpu), default=model)

    def _add_cpu(self, cpu: Cpu) -> None:
        number = self.builder.add(DeviceKind.CPU, cpu.label)
        for device in cpu.children:
            self._add_pci(device, number, number)
        if cpu.ports:
            nic = self.builder.add(DeviceKind.NIC, f"nic-of-cpu-{cpu.label}")
            self.builder.connect(nic, number, LinkType.PCI, LOC_BYTES_PER_S)
            self._add_ports(cpu.ports, nic)

    def _add_pci(self, device: PciDevice, parent: int, cpu: int) -> None:
        kind = DeviceKind.GPU if device.gpu else DeviceKind.NIC if device.ports else DeviceKind.PCI
        number = self.number[device.busid] = self.builder.add(kind, device.busid)
        self.builder.connect(number, parent, LinkType.PCI, device.link_bytes_per_s)
        self._add_ports(device.ports, number)
        if device.gpu:
            self.cpu_of[device.busid] = cpu
            if device.gpu.c2c_bytes_per_s:
                self.builder.connect(number, cpu, LinkType.C2C, device.gpu.c2c_bytes_per_s)
        for child in device.children:
            self._add_pci(child, number, cpu)

    def _add_ports(self, ports: list[Port], nic: int) -> None:
        for port in ports:
            index = len(self.nets)
            device = self.builder.add(DeviceKind.NET, str(index))
            self.builder.connect(device, nic, LinkType.LOC, port.bytes_per_s)
            latency_s = (SOCKET_LATENCY_S if port.socket else LATENCY_S[LinkType.NET]) + port.latency_s
            rail = index if port.rail is None else port.rail
            self.nets.append(Net(device, port.name, port.bytes_per_s, rail, port.gdr, port.socket, latency_s))

    def _join_cpus(self) -> None:
        cpus = [number for number, device in enumerate(self.builder.devices) if device.kind is DeviceKind.CPU]
        numbered = list(zip(cpus, self.host.cpus, strict=True))
        for (one, cpu), (other, second) in combinations(numbered, 2):
            if cpu.board == second.board:
                self.builder.connect(one, other, LinkType.SYS, cpu.sys_bytes_per_s)

    def _add_memory(self) -> None:
        """What a NUMA node's memory sustains, half of it each way: what is written there is read as often."""
        cpus = [number for number, device in enumerate(self.builder.devices) if device.kind is DeviceKind.CPU]
        boards = [[cpu.label for cpu in self.host.cpus if cpu.board == each.board] for each in self.host.cpus]
        for number, cpu, labels in zip(cpus, self.host.cpus, boards, strict=True):
            memory = self.builder.add(DeviceKind.MEM, cpu.label)
            shared = 1 if cpu.arch == "arm64" else numa_nodes_per_socket(labels)
            rate = cpu.socket_memory_bytes_per_s / shared / 2
            self.builder.connect(number, memory, LinkType.MEM, rate)

    def _add_loopback(self, gpus: list[int]) -> None:
        stack = self.builder.add(DeviceKind.NET, "0")
        for gpu in gpus:
            self.builder.connect(gpu, stack, LinkType.NET, self.host.loopback_bytes_per_s, SOCKET_LATENCY_S)

    def _add_nvlinks(self, gpus: list[PciDevice]) -> None:
        switch = None
        pairs: dict[tuple[int, int], float] = {}
        for gpu in gpus:
            number = self.number[gpu.busid]
            for target, bytes_per_s in (gpu.gpu.nvlinks if gpu.gpu else {}).items():
                if target == NVSWITCH:
                    switch = self.builder.add(DeviceKind.NVS, "0") if switch is None else switch
                    self.builder.connect(number, switch, LinkType.NVL, bytes_per_s)
                elif target == OWN_CPU:
                    self.builder.connect(number, self.cpu_of[gpu.busid], LinkType.NVL, bytes_per_s)
                elif target in self.number:
                    key = (min(number, self.number[target]), max(number, self.number[target]))
                    pairs[key] = max(pairs.get(key, 0.0), bytes_per_s)  # both ends list the same links
        for (one, other), bytes_per_s in pairs.items():
            self.builder.connect(one, other, LinkType.NVL, bytes_per_s, DIRECT_NVLINK_LATENCY_S)

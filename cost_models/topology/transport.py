"""How two GPUs of one machine talk, and how a GPU reaches the network.

NVLink and C2C are used where they connect; PCIe peer-to-peer up to PXB (on AMD with at most two GPUs up to SYS), if the
driver allows it; otherwise data go through host memory (kind ``shm``): up the sender's PCI links to its CPU and down to
the receiver. To the network a GPU goes straight (GPUDirect RDMA) up to P2C, else through its CPU.

Source: NVIDIA/nccl 2.30.7 src/graph/paths.cc (ncclTopoCheckP2p, ncclTopoCheckGdr, ncclTopoComputePaths).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from cost_models.topology.machine import Machine
from cost_models.topology.nics import bond_nets, nets_of
from cost_models.topology.paths import DeviceKind, Path, PathType
from traces.errors import InputError


@dataclass(frozen=True, slots=True)
class LocalRoute:
    """Numbers of the machine's links from one end to the other, and what they are used as."""

    links: tuple[int, ...]
    path_type: PathType
    kind: str


@dataclass(frozen=True, slots=True)
class Egress:
    """A GPU's way to its port, and back."""

    path: Path
    back: Path
    net: int


class Transport:
    """Routes of one machine, each found once.

    Parameters
    ----------
    machine : the node with exactly the GPUs that have ranks.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = bond_nets(machine)
        self._local: dict[tuple[int, int], LocalRoute] = {}

    @property
    def p2p_level(self) -> PathType:
        """Worst path over which GPUs talk directly."""
        if not self.machine.pcie_p2p:
            return PathType.C2C
        return PathType.SYS if self.machine.amd and len(self.machine.gpus) <= 2 else PathType.PXB

    def local(self, source: int, target: int) -> LocalRoute:
        """Route between two different GPUs, by local rank."""
        key = (source, target)
        if key not in self._local:
            self._local[key] = self._find_local(self.machine.gpus[source], self.machine.gpus[target])
        return self._local[key]

    @cached_property
    def egress(self) -> tuple[Egress, ...]:
        """Way to the network of each GPU, by local rank; empty where the machine has no port."""
        if not self.machine.nets:
            return ()
        return tuple(self._find_egress(gpu) for gpu in range(len(self.machine.gpus)))

    def _find_local(self, source: int, target: int) -> LocalRoute:
        path = self.machine.paths_from(source).get(target)
        if path is None:
            raise InputError("two GPUs of one machine are not connected", remedy="check the topology file")
        kind = _direct_kind(path.type, self.p2p_level)
        links = path.links if kind != "shm" else self._through_hosts(source, target)
        return LocalRoute(links, path.type, kind)

    def _through_hosts(self, source: int, target: int) -> tuple[int, ...]:
        up, down = self._to_cpu(source), self._to_cpu(target).reversed()
        between = self.machine.paths_from(self._end(up, source))[self.machine.links[down.links[0]].source]
        return up.links + between.links + down.links

    def _to_cpu(self, gpu: int) -> Path:
        paths = self.machine.paths_from(gpu)
        return min((paths[cpu] for cpu in self.machine.devices_of(DeviceKind.CPU) if cpu in paths), key=_hops)

    def _end(self, path: Path, start: int) -> int:
        return self.machine.links[path.links[-1]].target if path.links else start

    def _find_egress(self, gpu: int) -> Egress:
        net = nets_of(self.machine, gpu)[0]
        device, port = self.machine.gpus[gpu], self.machine.nets[net]
        path = self.machine.paths_from(device)[port.device]
        if not port.gdr or path.type > PathType.P2C:
            path = self._staged(device, port.device, path.type)
        return Egress(path, path.reversed(), net)

    def _staged(self, gpu: int, port: int, path_type: PathType) -> Path:
        up = self._to_cpu(gpu)
        onward = self.machine.paths_from(self._end(up, gpu))[port]
        return Path(up.links + onward.links, path_type, min(up.bytes_per_s, onward.bytes_per_s))


def _direct_kind(path_type: PathType, p2p_level: PathType) -> str:
    if path_type <= PathType.NVB:
        return "nvlink"
    if path_type is PathType.C2C:
        return "c2c"
    if path_type is PathType.NET:
        return "socket"
    return "pcie" if path_type <= p2p_level else "shm"


def _hops(path: Path) -> int:
    return len(path.links)

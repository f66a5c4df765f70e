"""How two GPUs of one machine talk, and how a GPU reaches the network.

NVLink and C2C are used where they connect; PCIe peer-to-peer up to PXB (on AMD with at most two GPUs up to SYS), if the
driver allows it; otherwise data go through host memory (kind ``shm``): up the sender's PCI links, into a buffer and
down to the receiver; without shared memory over the NICs. The buffer lies in the NUMA node near the receiver's GPU, or
where the processes are bound. To the network a GPU goes straight (GPUDirect RDMA) up to P2C, else through the memory of
its CPU. It leaves by the port of the receiver's rail: straight where that port is near, over NVLink through the GPU
that is near to it where it is not (PXN), and by its own port where neither is possible.

Source: NVIDIA/nccl 2.30.7 src/graph/paths.cc (ncclTopoCheckP2p, ncclTopoCheckGdr, ncclTopoComputePaths), src/graph/
search.cc (ncclTopoGetNetDev), src/transport/shm.cc (NCCL_SHM_LOCALITY), src/graph/topo.cc (ncclTopoGetCpuAffinity: a
process that is bound to other cores stays there).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from cost_models.topology.machine import Machine
from cost_models.topology.nccl_settings import NcclSettings
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
    """A GPU's way to a port, and back; ``relay`` is the GPU (by local rank) through which it leads."""

    path: Path
    back: Path
    net: int
    relay: int | None = None


class Transport:
    """Routes of one machine, each found once.

    Parameters
    ----------
    machine : the node with exactly the GPUs that have ranks.
    settings : NCCL's variables.
    """

    def __init__(self, machine: Machine, settings: NcclSettings = NcclSettings()) -> None:  # noqa: B008 immutable
        self.machine, self.settings = bond_nets(machine), settings
        self._local: dict[tuple[int, int], LocalRoute] = {}
        self._egress: dict[tuple[int, int], Egress] = {}

    @property
    def p2p_level(self) -> PathType:
        """Worst path over which GPUs talk directly."""
        if self.settings.p2p_disable:
            return PathType.LOC
        if self.settings.p2p_level is not None:
            return self.settings.p2p_level if self.machine.pcie_p2p else min(self.settings.p2p_level, PathType.C2C)
        if not self.machine.pcie_p2p:
            return PathType.C2C
        return PathType.SYS if self.machine.amd and len(self.machine.gpus) <= 2 else PathType.PXB

    def local(self, source: int, target: int) -> LocalRoute:
        """Route between two different GPUs, by local rank."""
        key = (source, target)
        if key not in self._local:
            self._local[key] = self._find_local(source, target)
        return self._local[key]

    @cached_property
    def egress(self) -> tuple[Egress, ...]:
        """Way to the network of each GPU, by local rank; empty where the machine has no port."""
        if not self.machine.nets:
            return ()
        return tuple(self._find_egress(gpu) for gpu in range(len(self.machine.gpus)))

    def egress_to(self, source: int, target: int) -> Egress:
        """Way out for data to the GPU ``target`` (local rank) of another node: the port of the target's rail."""
        key = (source, target)
        if key not in self._egress:
            self._egress[key] = self._find_egress_to(source, target)
        return self._egress[key]

    def _find_egress_to(self, source: int, target: int) -> Egress:
        own = self.egress[source]
        if self.settings.pxn_disable or target >= len(self.egress) or self.egress[target].net == own.net:
            return own
        rail = self.egress[target]
        device, port = self.machine.gpus[source], self.machine.nets[rail.net]
        direct = self.machine.paths_from(device).get(port.device)
        if not port.gdr or rail.path.type > PathType.P2C:
            return own
        if direct is not None and direct.type <= PathType.PXB:
            return Egress(direct, direct.reversed(), rail.net)
        relay = self.local(source, target)
        if relay.kind != "nvlink":
            return own
        links = relay.links + rail.path.links
        rate = min(self.machine.links[link].capacity_bytes_per_s for link in links)
        path = Path(links, PathType.PXN, rate)
        return Egress(path, path.reversed(), rail.net, relay=target)

    def _find_local(self, source: int, target: int) -> LocalRoute:
        one, other = self.machine.gpus[source], self.machine.gpus[target]
        path = self.machine.paths_from(one).get(other)
        if path is None:
            raise InputError("two GPUs of one machine are not connected", remedy="check the topology file")
        kind = _direct_kind(path.type, self.p2p_level)
        if kind == "shm" and self.settings.shm_disable:
            return self._through_network(source, target)
        return LocalRoute(path.links if kind != "shm" else self._through_hosts(one, other), path.type, kind)

    def _through_network(self, source: int, target: int) -> LocalRoute:
        if not self.egress:
            raise InputError(
                "two GPUs can talk neither directly nor through the host, and there is no NIC",
                got="shared memory disabled",
                remedy="allow shared memory, or direct access by NCCL_P2P_LEVEL",
            )
        up, down = self.egress[source], self.egress[target]
        kind = "socket" if self.machine.nets[up.net].socket else "net"
        return LocalRoute(up.path.links + down.back.links, PathType.NET, kind)

    def _through_hosts(self, source: int, target: int) -> tuple[int, ...]:
        """Up to the sender's CPU, to the one whose memory has the buffer, into it and back, and down."""
        up, down = self._to_cpu(source), self._to_cpu(target).reversed()
        here, there = self._end(up, source), self.machine.links[down.links[0]].source
        buffer = self._buffer_cpu(here, there)
        ways = self.machine.paths_from(here)[buffer].links, self.machine.paths_from(buffer)[there].links
        return (*up.links, *ways[0], *self.machine.memory_loop(buffer), *ways[1], *down.links)

    def _buffer_cpu(self, sender: int, receiver: int) -> int:
        bound = self.machine.host_numa
        if bound is None:
            return sender if self.settings.shm_locality == 1 else receiver
        return next(cpu for cpu in self.machine.devices_of(DeviceKind.CPU) if self.machine.devices[cpu].label == bound)

    def _to_cpu(self, gpu: int) -> Path:
        paths = self.machine.paths_from(gpu)
        return min((paths[cpu] for cpu in self.machine.devices_of(DeviceKind.CPU) if cpu in paths), key=_hops)

    def _end(self, path: Path, start: int) -> int:
        return self.machine.links[path.links[-1]].target if path.links else start

    def _find_egress(self, gpu: int) -> Egress:
        net = nets_of(self.machine, gpu)[0]
        device, port = self.machine.gpus[gpu], self.machine.nets[net]
        path = self.machine.paths_from(device)[port.device]
        if not port.gdr or path.type > self.settings.net_gdr_level:
            path = self._staged(device, port.device, path.type)
        return Egress(path, path.reversed(), net)

    def _staged(self, gpu: int, port: int, path_type: PathType) -> Path:
        up = self._to_cpu(gpu)
        cpu = self._end(up, gpu)
        onward = self.machine.paths_from(cpu)[port]
        links = (*up.links, *self.machine.memory_loop(cpu), *onward.links)
        return Path(links, path_type, min(up.bytes_per_s, onward.bytes_per_s))


def _direct_kind(path_type: PathType, p2p_level: PathType) -> str:
    if path_type is PathType.NET:
        return "socket"
    if path_type > p2p_level:
        return "shm"
    if path_type <= PathType.NVB:
        return "nvlink"
    return "c2c" if path_type is PathType.C2C else "pcie"


def _hops(path: Path) -> int:
    return len(path.links)

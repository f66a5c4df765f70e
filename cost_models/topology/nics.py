"""Which NIC a GPU uses, and NICs that a GPU drives together.

Rule: of all ports, those with the highest bandwidth from the GPU, of these those of the lowest path type, are *local*.
A GPU gets ceil(local ports / GPUs to which the first of them is local) ports; it begins at its own number (bits
mirrored if the number of local ports is a power of two) and takes the following ones, one per channel. Ports that a GPU
drives together are one port here, of the summed bandwidth, so that a route stays a chain of links.

Source: NVIDIA/nccl 2.30.7 src/graph/topo.cc (ncclTopoGetLocal, ncclTopoGetLocalNet, mirrorBits).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cost_models.topology.machine import Machine, Net, rebuild
from cost_models.topology.paths import DeviceKind, Path


def local_nets(machine: Machine, gpu: int) -> list[int]:
    """Ports local to a GPU (by local rank): highest bandwidth, then lowest path type."""
    paths = machine.paths_from(machine.gpus[gpu])
    found = {index: _merit(paths[net.device]) for index, net in enumerate(machine.nets) if net.device in paths}
    best = max(found.values(), default=None)
    return [index for index, merit in found.items() if merit == best]


def nets_of(machine: Machine, gpu: int) -> list[int]:
    """Ports that a GPU (by local rank) drives, the first of which carries its first channel.

    Empty where the machine has no port.
    """
    local = local_nets(machine, gpu)
    if not local:
        return []
    per_gpu = -(-len(local) // _gpus_near(machine, local[0]))
    start = _mirror_bits(gpu, len(local)) if len(local) & (len(local) - 1) == 0 else gpu
    return [local[(start + channel) % len(local)] for channel in range(per_gpu)]


def bond_nets(machine: Machine) -> Machine:
    """The machine with ports that one GPU drives together made one; unchanged where GPUs' sets overlap in part."""
    sets = {frozenset(nets_of(machine, gpu)) for gpu in range(len(machine.gpus))}
    if sum(map(len, sets)) != len(frozenset[int]().union(*sets)):
        return machine
    bonds = [bond for bond in (_find_bond(machine, sorted(members)) for members in sets) if bond]
    if not bonds:
        return machine
    capacities = {link: capacity for bond in bonds for link, capacity in bond.capacities.items()}
    gone = frozenset[int]().union(*(bond.gone for bond in bonds))
    widened = {bond.net.device: bond.net for bond in bonds}
    nets = tuple(widened.get(net.device, net) for net in machine.nets)
    return rebuild(replace(machine, nets=nets), gone, capacities)


@dataclass(frozen=True)
class _Bond:
    """The port that stands for several, devices that it replaces, capacities of its links."""

    net: Net
    gone: frozenset[int]
    capacities: dict[int, float]


def _find_bond(machine: Machine, members: list[int]) -> _Bond | None:
    nets = [machine.nets[index] for index in members]
    uplinks = {net.device: _uplinks(machine, net) for net in nets}
    nics = {machine.links[port].target: pci for port, pci in uplinks.values()}
    parents = {machine.links[pci].target for pci in nics.values()}
    if len(nets) < 2 or len(parents) > 1 or any(net.socket for net in nets):
        return None
    port, pci = uplinks[nets[0].device]
    total = sum(net.bytes_per_s for net in nets)
    pci_total = sum(machine.links[link].capacity_bytes_per_s for link in nics.values())
    capacities = {port: total, port ^ 1: total, pci: pci_total, pci ^ 1: pci_total}
    bonded = replace(nets[0], name="+".join(net.name for net in nets), bytes_per_s=total)
    gone = {net.device for net in nets[1:]} | (set(nics) - {machine.links[port].target})
    return _Bond(bonded, frozenset(gone), capacities)


def _uplinks(machine: Machine, net: Net) -> tuple[int, int]:
    """Numbers of the links port to NIC and NIC to its parent."""
    port, link = machine.outgoing[net.device][0]
    pci = next(number for number, up in machine.outgoing[link.target] if machine.kinds[up.target] is not DeviceKind.NET)
    return port, pci


def _merit(path: Path) -> tuple[float, int]:
    return path.bytes_per_s, -path.type


def _gpus_near(machine: Machine, net: int) -> int:
    paths = [machine.paths_from(gpu).get(machine.nets[net].device) for gpu in machine.gpus]
    merits = [_merit(path) for path in paths if path]
    return merits.count(max(merits))


def _mirror_bits(value: int, power: int) -> int:
    width = power.bit_length() - 1
    return sum(1 << (width - 1 - bit) for bit in range(width) if value >> bit & 1)

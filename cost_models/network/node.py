"""A machine as NCCL's search sees it: ways between GPUs and to ports, and what of a channel's speed each link carries.

Source: NVIDIA/nccl 2.30.7 src/graph/search.cc (followPath, ncclTopoSearchInit), src/graph/paths.cc.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from cost_models.topology.links import GB_PER_S, LinkType
from cost_models.topology.nics import nets_of
from cost_models.topology.paths import DeviceKind, PathType
from cost_models.topology.transport import Transport

_INTEL_OVERHEAD = 6 / 5


@dataclass(frozen=True)
class Way:
    """Links of a path, what of a channel's speed each of them carries, and whether it joins two GPUs of the node."""

    links: tuple[int, ...]
    shares: tuple[float, ...]
    type: PathType
    gb_per_s: float
    inside: bool


class Node:
    """A machine as the search sees it: ways between GPUs, and to the ports (none where only one node takes part).

    Parameters
    ----------
    gpus : local ranks that take part, default all; the search numbers them from 0.
    """

    def __init__(self, transport: Transport, several_nodes: bool, gpus: Sequence[int] | None = None) -> None:
        machine = transport.machine
        self.transport, self.intel, self.sm = transport, machine.intel, machine.sm
        self.local_ranks = tuple(range(len(machine.gpus)) if gpus is None else gpus)
        self.n_gpus = len(self.local_ranks)
        self.capacities = [link.capacity_bytes_per_s / GB_PER_S for link in machine.links]
        places = range(self.n_gpus)
        self.gpu_ways = {(i, j): self._gpu_way(i, j) for i in places for j in places if i != j}
        used = {net for rank in self.local_ranks for net in nets_of(machine, rank)} if several_nodes else set()
        self.nets = tuple(sorted(used))
        self.out_ways = {(place, net): self._net_way(place, net) for place in places for net in self.nets}
        self.net_gb_per_s = {net: machine.nets[net].bytes_per_s / GB_PER_S for net in self.nets}

    @cached_property
    def signature(self) -> Hashable:
        """Equal for nodes in which a search finds the same, up to the numbers of links and ports."""
        numbers: dict[int, int] = {}
        ways = [*self.gpu_ways.values(), *self.out_ways.values()]
        named = tuple(
            (tuple(numbers.setdefault(link, len(numbers)) for link in way.links), way.shares, way.type) for way in ways
        )
        rates = tuple(self.capacities[link] for link in numbers)
        ports = tuple(self.net_gb_per_s[net] for net in self.nets)
        return self.n_gpus, self.sm, self.has_nvswitch, named, rates, ports, self.total_gb_per_s

    def memory(self, source: int, target: int) -> tuple[int, ...]:
        """Links of host memory on the way between two GPUs (by place), which NCCL does not see."""
        links = self.transport.local(self.local_ranks[source], self.local_ranks[target]).links
        return tuple(link for link in links if self.transport.machine.links[link].type is LinkType.MEM)

    def _gpu_way(self, source: int, target: int) -> Way:
        route = self.transport.local(self.local_ranks[source], self.local_ranks[target])
        staged = max(route.path_type, PathType.PHB) if route.kind == "shm" else route.path_type
        return self._way(route.links, staged, inside=True)

    def _net_way(self, place: int, net: int) -> Way:
        transport, gpu = self.transport, self.local_ranks[place]
        own = transport.egress[gpu]
        if own.net == net:
            return self._way(own.path.links, own.path.type)
        relayed = [transport.egress_to(gpu, near) for near in self.local_ranks if transport.egress[near].net == net]
        best = min((up for up in relayed if up.net == net), key=lambda up: up.path.type, default=None)
        if best is not None:
            return self._way(best.path.links, best.path.type)
        path = transport.machine.paths_from(transport.machine.gpus[gpu]).get(transport.machine.nets[net].device)
        return self._way(path.links, path.type) if path else Way((), (), PathType.DIS, 0.0, False)

    def _way(self, route: tuple[int, ...], path_type: PathType, inside: bool = False) -> Way:
        machine = self.transport.machine
        links = tuple(link for link in route if machine.links[link].type is not LinkType.MEM)
        through_host = self.intel and path_type is PathType.PHB
        slow = [through_host and machine.links[link].type is LinkType.PCI for link in links]
        shares = tuple(_INTEL_OVERHEAD if more else 1.0 for more in slow)
        return Way(links, shares, path_type, min(self.capacities[link] for link in links), inside)

    def nearest(self, here: int) -> tuple[int, ...]:
        """Other GPUs, fastest and shortest way first, then in the order of their numbers from ``here`` on."""
        return self._orders[here, -1]

    def nearest_by_port(self, here: int, net: int) -> tuple[int, ...]:
        """Other GPUs, those with the fastest and shortest way to a port first, then as :meth:`nearest`."""
        return self._orders[here, net]

    def distances(self, here: int) -> dict[int, tuple[float, int]]:
        """Rate (negative) and links of the ways to other GPUs."""
        return self._distances[here]

    @cached_property
    def _distances(self) -> list[dict[int, tuple[float, int]]]:
        found: list[dict[int, tuple[float, int]]] = [{} for _ in range(self.n_gpus)]
        for (source, target), way in self.gpu_ways.items():
            found[source][target] = (-way.gb_per_s, len(way.links))
        return found

    @cached_property
    def _orders(self) -> dict[tuple[int, int], tuple[int, ...]]:
        """By (GPU, port), of a port that does not matter (GPU, -1)."""
        orders: dict[tuple[int, int], tuple[int, ...]] = {}
        for here in range(self.n_gpus):
            inside = self._distances[here]
            turned = [(here + i) % self.n_gpus for i in range(1, self.n_gpus)]
            nearest = sorted(turned, key=inside.__getitem__)
            orders[here, -1] = tuple(nearest)
            for net in self.nets:
                ends = {gpu: self.out_ways[gpu, net] for gpu in turned}
                outside = {gpu: (-way.gb_per_s, len(way.links)) for gpu, way in ends.items()}
                orders[here, net] = tuple(sorted(nearest, key=outside.__getitem__))
        return orders

    def ports_from(self, gpu: int) -> tuple[int, ...]:
        """Ports, nearest first."""
        return self._ports_from[gpu]

    @cached_property
    def _ports_from(self) -> list[tuple[int, ...]]:
        return [
            tuple(sorted(self.nets, key=lambda net: self.out_ways[gpu, net].type))  # noqa: B023 used at once
            for gpu in range(self.n_gpus)
        ]

    def near_port(self, net: int) -> tuple[int, ...]:
        """GPUs nearest to a port, those first that use it themselves."""
        return self._near_port[net]

    @cached_property
    def _near_port(self) -> dict[int, tuple[int, ...]]:
        own = [self.transport.egress[rank].net for rank in self.local_ranks] if self.nets else []
        found = {}
        for net in self.nets:
            types = [self.out_ways[gpu, net].type for gpu in range(self.n_gpus)]
            near = [gpu for gpu, kind in enumerate(types) if kind == min(types)]
            found[net] = (*(gpu for gpu in near if own[gpu] == net), *(gpu for gpu in near if own[gpu] != net))
        return found

    def in_way(self, net: int, gpu: int) -> Way:
        """Way from a port to a GPU: its way out, backwards."""
        way = self.out_ways[gpu, net]
        return replace(way, links=tuple(link ^ 1 for link in reversed(way.links)), shares=way.shares[::-1])

    @property
    def max_gb_per_s(self) -> float:
        """Best rate of any path that a channel must use."""
        ways = self.out_ways if self.nets else self.gpu_ways
        return max((way.gb_per_s for way in ways.values()), default=0.0)

    @property
    def total_gb_per_s(self) -> float:
        """What a GPU's NVLinks, or its PCIe link, carry together."""
        return max(max(self.nvlink_gb_per_s(gpu), self._sum(gpu, LinkType.PCI)) for gpu in range(self.n_gpus))

    def nvlink_gb_per_s(self, gpu: int) -> float:
        """What a GPU's NVLinks carry together."""
        return self._sum(gpu, LinkType.NVL)

    def _sum(self, gpu: int, kind: LinkType) -> float:
        machine = self.transport.machine
        device = machine.gpus[self.local_ranks[gpu]]
        links = (link for _, link in machine.outgoing[device] if link.type is kind)
        return sum((link.capacity_bytes_per_s for link in links), 0.0) / GB_PER_S

    @property
    def is_uniform(self) -> bool:
        """Whether the way between any two GPUs leads over an NVSwitch, equally fast."""
        ways = {(way.type, way.gb_per_s, len(way.links)) for way in self.gpu_ways.values()}
        return self.has_nvswitch and len(ways) == 1 and next(iter(ways))[0] is PathType.NVL

    @property
    def has_nvswitch(self) -> bool:
        """Whether NVLinks end at switches."""
        return bool(self.transport.machine.devices_of(DeviceKind.NVS))

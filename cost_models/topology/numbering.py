"""Numbers and names of a cluster's links, without listing them.

Each node owns a block: the machine's links, then for each port in use the link to its leaf and the link back. After all
nodes come the leaves: to the spine and back.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from cost_models.topology.fabric import Fabric
from cost_models.topology.links import HOST_LINKS, LATENCY_S, Link, LinkType
from cost_models.topology.machine import Machine
from cost_models.topology.paths import DeviceKind
from cost_models.topology.transport import Transport


@dataclass(frozen=True, eq=False)
class Numbering:
    """Where the links of each node begin, and what each link is."""

    transports: tuple[Transport, ...]
    machine_of_node: tuple[int, ...]
    ranks_per_node: int
    fabric: Fabric | None
    slowed: tuple[tuple[int, float], ...] = ()

    @cached_property
    def wired(self) -> tuple[tuple[int, ...], ...]:
        """For each machine, the ports wired to the fabric: those that some GPU uses."""
        if self.fabric is None:
            return tuple(() for _ in self.transports)
        return tuple(tuple(sorted({egress.net for egress in transport.egress})) for transport in self.transports)

    @cached_property
    def _rails(self) -> dict[int, int]:
        used = {self._machine(m).nets[net].rail for m, nets in enumerate(self.wired) for net in nets}
        return {rail: number for number, rail in enumerate(sorted(used))}

    def _machine(self, machine: int) -> Machine:
        return self.transports[machine].machine

    @cached_property
    def _starts(self) -> list[int]:
        sizes = [len(self._machine(m).links) + 2 * len(self.wired[m]) for m in range(len(self.transports))]
        return [0, *np.cumsum([sizes[m] for m in self.machine_of_node]).tolist()]

    def start(self, node: int) -> int:
        """Number of a node's first link."""
        return self._starts[node]

    def links_of_node(self, node: int) -> range:
        """Numbers of the links of a node, to its leaves included."""
        return range(self._starts[node], self._starts[node + 1])

    def uplink(self, node: int, net: int) -> int:
        """Number of the link from a port to its leaf; the next one leads back."""
        machine = self.machine_of_node[node]
        return self._starts[node] + len(self._machine(machine).links) + 2 * self.wired[machine].index(net)

    @property
    def spines(self) -> int:
        """Links from each leaf to the spine."""
        return self.fabric.spines if self.fabric else 1

    def spine_link(self, leaf: int, spine: int = 0) -> int:
        """Number of a link from a leaf to the spine; the next one leads back."""
        return self._starts[-1] + 2 * (leaf * self.spines + spine)

    def leaf_of(self, node: int, net: int) -> int:
        """Leaf switch of a node's port."""
        assert self.fabric is not None
        return self.fabric.leaf_of(node, self._rails[self._machine(self.machine_of_node[node]).nets[net].rail])

    def leaves_of(self, nodes: NDArray[np.int64], machine: int, net: int) -> NDArray[np.int64]:
        """Leaf switch of the same port of several nodes that are alike."""
        assert self.fabric is not None
        rail = self._rails[self._machine(machine).nets[net].rail]
        return np.full(len(nodes), rail) if self.fabric.kind == "rail" else nodes // self.fabric.nodes_per_leaf

    @cached_property
    def leaf_bytes_per_s(self) -> list[float]:
        """Capacity of each leaf's link to the spine."""
        totals: dict[int, float] = {}
        for node, machine in enumerate(self.machine_of_node):
            for net in self.wired[machine]:
                leaf = self.leaf_of(node, net)
                totals[leaf] = totals.get(leaf, 0.0) + self._machine(machine).nets[net].bytes_per_s
        ratio = self.fabric.oversubscription if self.fabric else 1.0
        return [totals[leaf] / ratio for leaf in sorted(totals)]

    def __len__(self) -> int:
        return self._starts[-1] + 2 * self.spines * len(self.leaf_bytes_per_s)

    @cached_property
    def capacities_bytes_per_s(self) -> NDArray[np.float64]:
        """Capacity of every link."""
        blocks = [
            [link.capacity_bytes_per_s for link in self._machine(m).links]
            + [self._machine(m).nets[net].bytes_per_s for net in nets for _ in range(2)]
            for m, nets in enumerate(self.wired)
        ]
        capacities = self._lay_out(
            blocks, [rate / self.spines for rate in self.leaf_bytes_per_s for _ in range(2 * self.spines)]
        )
        for link, share in self.slowed:
            capacities[link] *= share
        return capacities

    @cached_property
    def latencies_s(self) -> NDArray[np.float64]:
        """Latency of every link."""
        blocks = [
            [link.latency_s for link in self._machine(m).links]
            + [self._machine(m).nets[net].latency_s for net in nets for _ in range(2)]
            for m, nets in enumerate(self.wired)
        ]
        return self._lay_out(blocks, [LATENCY_S[LinkType.NET]] * (2 * self.spines * len(self.leaf_bytes_per_s)))

    @cached_property
    def host_links(self) -> NDArray[np.bool_]:
        """Which links join NUMA nodes or lead into their memory: their capacity is what they sustain."""
        blocks = [
            [float(link.type in HOST_LINKS) for link in self._machine(m).links] + [0.0] * (2 * len(nets))
            for m, nets in enumerate(self.wired)
        ]
        return self._lay_out(blocks, [0.0] * (2 * self.spines * len(self.leaf_bytes_per_s))) > 0

    def _lay_out(self, blocks: list[list[float]], fabric: list[float]) -> NDArray[np.float64]:
        arrays = [np.asarray(block, dtype=np.float64) for block in blocks]
        return np.concatenate([*(arrays[m] for m in self.machine_of_node), np.asarray(fabric, dtype=np.float64)])

    def ends(self, index: int) -> tuple[str, str, LinkType]:
        """Source, target and type of a link."""
        if index >= self._starts[-1]:
            uplink, back = divmod(index - self._starts[-1], 2)
            leaf, spine = divmod(uplink, self.spines)
            return (*_order(f"leaf:{leaf}", f"spine:{spine}" if self.spines > 1 else "spine", back), LinkType.NET)
        node = bisect_right(self._starts, index) - 1
        machine = self._machine(self.machine_of_node[node])
        local = index - self._starts[node]
        if local < len(machine.links):
            link = machine.links[local]
            return self.device_name(node, link.source), self.device_name(node, link.target), link.type
        wire, back = divmod(local - len(machine.links), 2)
        net = self.wired[self.machine_of_node[node]][wire]
        port, leaf_name = self.device_name(node, machine.nets[net].device), f"leaf:{self.leaf_of(node, net)}"
        return (*_order(port, leaf_name, back), LinkType.NET)

    def device_name(self, node: int, device: int) -> str:
        """Name of a device: ``gpu:RANK``, ``pci:ADDRESS@NODE``, ``cpu:`` and ``mem:NODE.NUMA``, ``nic:NODE.PORT``."""
        machine = self._machine(self.machine_of_node[node])
        found = machine.devices[device]
        if found.kind is DeviceKind.GPU:
            return f"gpu:{node * self.ranks_per_node + machine.gpus.index(device)}"
        if found.kind is DeviceKind.NVS:
            return f"nvs:{node}"
        if found.kind in (DeviceKind.CPU, DeviceKind.MEM):
            return f"{found.kind.name.lower()}:{node}.{found.label}"
        return f"nic:{node}.{found.label}" if found.kind is DeviceKind.NET else f"pci:{found.label}@{node}"


class LinkTable(Sequence[Link]):
    """The links of a cluster, each made when asked for."""

    def __init__(self, numbering: Numbering) -> None:
        self._numbering = numbering

    def __len__(self) -> int:
        return len(self._numbering)

    @overload
    def __getitem__(self, index: int) -> Link: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Link, ...]: ...
    def __getitem__(self, index: int | slice) -> Link | tuple[Link, ...]:
        if isinstance(index, slice):
            return tuple(self._make(number) for number in range(len(self))[index])
        return self._make(range(len(self))[index])

    def __iter__(self) -> Iterator[Link]:
        return map(self._make, range(len(self)))

    def _make(self, index: int) -> Link:
        source, target, link_type = self._numbering.ends(index)
        capacity = float(self._numbering.capacities_bytes_per_s[index])
        latency_s = float(self._numbering.latencies_s[index])
        return Link(index, source, target, link_type, capacity, latency_s, f"{source}->{target}")


def _order(one: str, other: str, back: int) -> tuple[str, str]:
    return (other, one) if back else (one, other)

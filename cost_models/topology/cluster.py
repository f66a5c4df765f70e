"""The cluster: ranks on nodes, nodes on a fabric, and the route between any two ranks.

Nodes that are alike share one :class:`Machine`, so that a cluster of thousands costs no more than its arrays. Links are
numbered node by node (inside the machine, then each port's link to its leaf and back), then leaf by leaf (to the spine
and back); all are directed. Routes are composed on demand from parts that each machine finds once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cost_models.topology.fabric import Fabric
from cost_models.topology.links import LOC_BYTES_PER_S, Link, LinkType
from cost_models.topology.machine import Machine
from cost_models.topology.nccl_settings import NcclSettings
from cost_models.topology.numbering import LinkTable, Numbering
from cost_models.topology.paths import PathType
from cost_models.topology.routes import Route
from cost_models.topology.transport import Transport
from traces.errors import InputError

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True, eq=False)
class ClusterTopology:
    """Ranks, devices, links and routes of a cluster.

    Made by :func:`cost_models.topology.load_topology`. Compared and hashed by identity.

    Attributes
    ----------
    name : what the user named: a preset with its options, or a file.
    source : where the numbers come from.
    gpu : hardware name of the GPUs, None if unknown or without a profile.
    n_ranks, ranks_per_node : ranks r * ranks_per_node ... belong to node r.
    gpus_per_node : GPUs that a node has, of which ``ranks_per_node`` are used.
    machines : the node types, with exactly the GPUs in use; ``machine_of_node`` says which one a node is.
    fabric : network between nodes, None where there is one node.
    warnings : what was assumed or looks wrong, for the user.
    nccl : NCCL's environment variables.
    slowed : links that have less than their capacity: number, and the share that is left.
    """

    name: str
    source: str
    gpu: str | None
    n_ranks: int
    ranks_per_node: int
    gpus_per_node: int
    machines: tuple[Machine, ...]
    machine_of_node: tuple[int, ...]
    fabric: Fabric | None = None
    warnings: tuple[str, ...] = ()
    nccl: NcclSettings = NcclSettings()
    slowed: tuple[tuple[int, float], ...] = ()
    _classes: list[Route] = field(default_factory=list, init=False, repr=False)
    _class_of_code: dict[int, int] = field(default_factory=dict, init=False, repr=False)

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return len(self.machine_of_node)

    @cached_property
    def node_of(self) -> NDArray[np.int64]:
        """Node of each rank."""
        return np.arange(self.n_ranks, dtype=np.int64) // self.ranks_per_node

    @cached_property
    def local_rank(self) -> NDArray[np.int64]:
        """Number of each rank within its node."""
        return np.arange(self.n_ranks, dtype=np.int64) % self.ranks_per_node

    @cached_property
    def transports(self) -> tuple[Transport, ...]:
        """Routes inside each machine."""
        return tuple(Transport(machine, self.nccl) for machine in self.machines)

    @cached_property
    def numbering(self) -> Numbering:
        """Numbers of the links."""
        return Numbering(self.transports, self.machine_of_node, self.ranks_per_node, self.fabric, self.slowed)

    @cached_property
    def links(self) -> Sequence[Link]:
        """All directed links; made when asked for, so that it may be long."""
        return LinkTable(self.numbering)

    @property
    def link_capacities_bytes_per_s(self) -> NDArray[np.float64]:
        """Capacity of each link, in the order of ``links``."""
        return self.numbering.capacities_bytes_per_s

    @property
    def host_links(self) -> NDArray[np.bool_]:
        """Which links join NUMA nodes or are their memory: what they sustain; of others a transport reaches a share."""
        return self.numbering.host_links

    @property
    def link_latencies_s(self) -> NDArray[np.float64]:
        """Latency of each link, in the order of ``links``."""
        return self.numbering.latencies_s

    @cached_property
    def graph(self) -> nx.DiGraph[str]:
        """The whole cluster as a graph; edges carry ``index``, ``type``, ``capacity_bytes_per_s`` and ``latency_s``."""
        return self._graph_of(range(len(self.links)))

    def node_graph(self, node: int) -> nx.DiGraph[str]:
        """One node and its links to the leaf switches, as :attr:`graph`."""
        return self._graph_of(self.numbering.links_of_node(node))

    def _graph_of(self, indices: range) -> nx.DiGraph[str]:
        import networkx as nx

        graph: nx.DiGraph[str] = nx.DiGraph()
        for link in map(self.links.__getitem__, indices):
            attributes = {"capacity_bytes_per_s": link.capacity_bytes_per_s, "latency_s": link.latency_s}
            if not graph.has_edge(link.source, link.target) or _is_faster(graph, link):
                graph.add_edge(link.source, link.target, index=link.index, type=link.type.value, **attributes)
        return graph

    def route(self, src: int, dst: int) -> Route:
        """Way from one rank to another, as NCCL's transport takes it.

        >>> from cost_models.topology import load_topology
        >>> route = load_topology("dgx-h100").route(0, 5)
        >>> route.kind, route.path_type.name, route.bytes_per_s / 1e9
        ('nvlink', 'NVL', 370.8)
        """
        self._check_ranks(src, dst)
        if src == dst:
            return _SAME_RANK
        source_node, source = divmod(int(src), self.ranks_per_node)
        target_node, target = divmod(int(dst), self.ranks_per_node)
        if source_node != target_node:
            return self._route_between(source_node, source, target_node, target)
        local = self.transports[self.machine_of_node[source_node]].local(source, target)
        start = self.numbering.start(source_node)
        return self._measure(tuple(start + link for link in local.links), local.path_type, local.kind)

    def _check_ranks(self, *ranks: int) -> None:
        for rank in ranks:
            if not 0 <= rank < self.n_ranks:
                raise InputError("no such rank", got=rank, expected=f"0 to {self.n_ranks - 1}")

    def _route_between(self, source_node: int, source: int, target_node: int, target: int) -> Route:
        up = self.transports[self.machine_of_node[source_node]].egress_to(source, target)
        down = self.transports[self.machine_of_node[target_node]].egress[target]
        numbers = self.numbering
        here, there = numbers.leaf_of(source_node, up.net), numbers.leaf_of(target_node, down.net)
        ends = source_node * self.ranks_per_node + source, target_node * self.ranks_per_node + target
        spine = () if here == there else self._over_spine(*ends, here, there)
        links = (
            *(numbers.start(source_node) + link for link in up.path.links),
            numbers.uplink(source_node, up.net),
            *spine,
            numbers.uplink(target_node, down.net) + 1,
            *(numbers.start(target_node) + link for link in down.back.links),
        )
        socket = self.transports[self.machine_of_node[source_node]].machine.nets[up.net].socket
        return self._measure(links, PathType.NET, "socket" if socket else "net")

    def _over_spine(self, src: int, dst: int, here: int, there: int) -> tuple[int, int]:
        assert self.fabric is not None
        spine = int(self.fabric.spine_of(*(np.array([each]) for each in (src, dst, here, there)))[0])
        return self.numbering.spine_link(here, spine), self.numbering.spine_link(there, spine) + 1

    def _measure(self, links: tuple[int, ...], path_type: PathType, kind: str) -> Route:
        capacities, latencies = self._link_facts
        bottleneck = min((link for link in links if not self._is_memory(link)), key=capacities.__getitem__)
        host = [capacities[link] for link in links if self._is_host[link]]
        wires = [capacities[link] for link in links if not self._is_host[link]]
        latency_s = sum(latencies[link] for link in links)
        return Route(
            links, path_type, kind, latency_s, capacities[bottleneck], bottleneck, min(wires), min(host, default=inf)
        )

    @cached_property
    def _link_facts(self) -> tuple[list[float], list[float]]:
        """Capacities and latencies as lists, which are quicker than arrays to read one by one."""
        return self.link_capacities_bytes_per_s.tolist(), self.link_latencies_s.tolist()

    @cached_property
    def _is_host(self) -> list[bool]:
        links: list[bool] = self.host_links.tolist()
        return links

    def _is_memory(self, link: int) -> bool:
        return self._is_host[link] and self.numbering.ends(link)[2] is LinkType.MEM

    def pair_class(self, src: ArrayLike, dst: ArrayLike) -> NDArray[np.int64]:
        """Class of each pair of ranks; pairs of one class have routes of equal type, kind, latency and rate.

        Parameters
        ----------
        src, dst : ranks, arrays of one shape.

        Returns
        -------
        Indices into :attr:`pair_classes`.
        """
        sources, targets = np.broadcast_arrays(np.asarray(src, np.int64), np.asarray(dst, np.int64))
        for ranks in (sources, targets):
            if ranks.size:
                self._check_ranks(int(ranks.min()), int(ranks.max()))
        codes, first, inverse = np.unique(self._codes(sources, targets), return_index=True, return_inverse=True)
        examples = zip(codes.tolist(), sources.ravel()[first].tolist(), targets.ravel()[first].tolist(), strict=True)
        classes = np.array([self._class_of(*example) for example in examples], dtype=np.int64)
        return classes[inverse].reshape(sources.shape)

    @property
    def pair_classes(self) -> list[Route]:
        """One route of each class that :meth:`pair_class` has returned so far."""
        return list(self._classes)

    def _codes(self, src: NDArray[np.int64], dst: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers that are equal only where the routes are alike: machine and local rank of both ends, and the leaf."""
        if self.slowed:
            return np.where(src == dst, 0, 1 + src * self.n_ranks + dst)
        machine_of_node = np.asarray(self.machine_of_node, dtype=np.int64)
        (source_node, source), (target_node, target) = (np.divmod(ranks, self.ranks_per_node) for ranks in (src, dst))
        places = len(self.machines) * self.ranks_per_node
        ends = (machine_of_node[source_node] * self.ranks_per_node + source) * places
        ends += machine_of_node[target_node] * self.ranks_per_node + target
        reach = np.where(source_node == target_node, 1, 2)
        if self.fabric is not None and self.fabric.kind == "fat-tree":
            same_leaf = source_node // self.fabric.nodes_per_leaf == target_node // self.fabric.nodes_per_leaf
            reach += (reach == 2) & ~same_leaf  # with rails the local ranks say whether the leaf is the same
        return np.where(src == dst, 0, ends * 4 + reach)

    def _class_of(self, code: int, src: int, dst: int) -> int:
        if code not in self._class_of_code:
            route = self.route(src, dst)
            alike = (i for i, known in enumerate(self._classes) if _traits(known) == _traits(route))
            found = next(alike, None)
            if found is None:
                self._classes.append(route)
                found = self._classes.index(route)  # not its length before: another thread may have come between
            self._class_of_code[code] = found
        return self._class_of_code[code]


_SAME_RANK = Route((), PathType.LOC, "local", 0.0, LOC_BYTES_PER_S, -1, LOC_BYTES_PER_S)


def _traits(route: Route) -> tuple[PathType, str, float, float, float, float]:
    rates = route.bytes_per_s, route.wire_bytes_per_s, route.host_bytes_per_s
    return route.path_type, route.kind, route.latency_s, *rates


def _is_faster(graph: nx.DiGraph[str], link: Link) -> bool:
    return link.capacity_bytes_per_s > float(graph[link.source][link.target]["capacity_bytes_per_s"])

"""Which links each of many flows crosses, found for all flows at once.

A route inside a node is the same in every node of that machine, but for where the node's links begin; a route between
nodes is the sender's way out, its port's uplink, the spine where the leaves differ, and the receiver's way in. So the
pairs of local ranks are looked up once each, and the rest is addition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cost_models.topology import ClusterTopology, Route

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FlowRoutes:
    """Routes of flows, as (flow, link) pairs sorted by flow.

    Attributes
    ----------
    flow, link : one entry for each link that a flow crosses; a flow from a rank to itself has none.
    route_class : for each flow, index into ``classes``.
    classes : one route of each class (equal type, kind, latency and rate).
    """

    flow: IntArray
    link: IntArray
    route_class: IntArray
    classes: tuple[Route, ...]

    @property
    def n_flows(self) -> int:
        """Number of flows."""
        return len(self.route_class)

    @cached_property
    def bounds(self) -> list[int]:
        """Where the entries of each flow begin, and where the last one's end."""
        bounds: list[int] = np.searchsorted(self.flow, np.arange(self.n_flows + 1)).tolist()
        return bounds

    @cached_property
    def links(self) -> list[tuple[int, ...]]:
        """Links that each flow crosses."""
        links = self.link.tolist()
        return [tuple(links[begin:end]) for begin, end in pairwise(self.bounds)]


def route_flows(topology: ClusterTopology, src: ArrayLike, dst: ArrayLike) -> FlowRoutes:
    """Links of all flows src[i] -> dst[i]; remembered, as exchanges repeat.

    Parameters
    ----------
    src, dst : ranks, one dimension, of equal length.

    >>> from cost_models.topology import load_topology
    >>> routes = route_flows(load_topology("dgx-h100"), [0, 1], [1, 0])
    >>> routes.flow.tolist(), [route.kind for route in routes.classes]
    ([0, 0, 1, 1], ['nvlink'])
    """
    sources, targets = np.broadcast_arrays(np.asarray(src, np.int64), np.asarray(dst, np.int64))
    return _route_flows(topology, sources.tobytes(), targets.tobytes())


@lru_cache(maxsize=64)
def _route_flows(topology: ClusterTopology, src: bytes, dst: bytes) -> FlowRoutes:
    sources, targets = np.frombuffer(src, np.int64), np.frombuffer(dst, np.int64)
    route_class = topology.pair_class(sources, targets)
    present, compact = np.unique(route_class, return_inverse=True)
    classes = topology.pair_classes
    parts = list(_entries(topology, sources, targets)) or [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    flow, link = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(flow, kind="stable")
    return FlowRoutes(flow[order], link[order], compact, tuple(classes[number] for number in present))


def _entries(topology: ClusterTopology, src: IntArray, dst: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """(flow, link) arrays; those of one flow come in the order of its route."""
    local = np.flatnonzero((topology.node_of[src] == topology.node_of[dst]) & (src != dst))
    yield from _inside_nodes(topology, local, src[local], dst[local])
    remote = np.flatnonzero(topology.node_of[src] != topology.node_of[dst])
    if remote.size:
        yield from _between_nodes(topology, remote, src[remote], dst[remote])


def _inside_nodes(
    topology: ClusterTopology, flows: IntArray, src: IntArray, dst: IntArray
) -> Iterator[tuple[IntArray, IntArray]]:
    per_node, node = topology.ranks_per_node, topology.node_of[src]
    machine = _machines(topology)[node]
    code = (machine * per_node + topology.local_rank[src]) * per_node + topology.local_rank[dst]
    for value, members in _groups(code):
        kind, source, target = value // per_node**2, value // per_node % per_node, value % per_node
        links = topology.transports[kind].local(source, target).links
        yield _lay(flows[members], _starts(topology)[node[members]], links)


def _between_nodes(
    topology: ClusterTopology, flows: IntArray, src: IntArray, dst: IntArray
) -> Iterator[tuple[IntArray, IntArray]]:
    target = topology.local_rank[dst]
    out_leaf, out = _ends(topology, flows, src, target)
    in_leaf, back = _ends(topology, flows, dst, None)
    yield from out
    crosses = np.flatnonzero(out_leaf != in_leaf)
    if crosses.size:
        numbers, fabric = topology.numbering, topology.fabric
        assert fabric is not None
        here, there = out_leaf[crosses], in_leaf[crosses]
        spine = fabric.spine_of(src[crosses], dst[crosses], here, there)
        yield flows[crosses], numbers.spine_link(0) + 2 * (here * fabric.spines + spine)
        yield flows[crosses], numbers.spine_link(0) + 2 * (there * fabric.spines + spine) + 1
    yield from back


def _ends(
    topology: ClusterTopology, flows: IntArray, rank: IntArray, target: IntArray | None
) -> tuple[IntArray, list[tuple[IntArray, IntArray]]]:
    """Leaf switch of each flow at one of its ends, and the entries of that end.

    ``target`` is the local rank to which the data go, which says by which port they leave; None at the receiving end.
    """
    numbers, node, per_node = topology.numbering, topology.node_of[rank], topology.ranks_per_node
    code = _machines(topology)[node] * per_node + topology.local_rank[rank]
    leaf, entries = np.zeros(len(rank), np.int64), []
    for value, members in _groups(code * per_node + (0 if target is None else target)):
        kind, local, onward = value // per_node**2, value // per_node % per_node, value % per_node
        transport, nodes = topology.transports[kind], node[members]
        end = transport.egress[local] if target is None else transport.egress_to(local, onward)
        leaf[members] = numbers.leaves_of(nodes, kind, end.net)
        wire = numbers.uplink(int(nodes[0]), end.net) - numbers.start(int(nodes[0]))
        links = (wire + 1, *end.back.links) if target is None else (*end.path.links, wire)
        entries.append(_lay(flows[members], _starts(topology)[nodes], links))
    return leaf, entries


def _lay(flows: IntArray, starts: IntArray, links: tuple[int, ...]) -> tuple[IntArray, IntArray]:
    return np.repeat(flows, len(links)), (starts[:, None] + np.array(links, np.int64)).ravel()


def _groups(code: IntArray) -> Iterator[tuple[int, IntArray]]:
    """Distinct values and where each occurs."""
    order = np.argsort(code, kind="stable")
    values, first = np.unique(code[order], return_index=True)
    yield from zip(values.tolist(), np.split(order, first[1:]) if len(first) else [], strict=True)


@lru_cache(maxsize=8)
def _machines(topology: ClusterTopology) -> IntArray:
    return np.asarray(topology.machine_of_node, dtype=np.int64)


@lru_cache(maxsize=8)
def _starts(topology: ClusterTopology) -> IntArray:
    return np.array([topology.numbering.start(node) for node in range(topology.n_nodes)], dtype=np.int64)

"""Routes between ranks, composed from parts that each machine finds once (`transport`) and the fabric's links."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import inf

import numpy as np

from cost_models.topology.fabric import Fabric
from cost_models.topology.links import LOC_BYTES_PER_S, LinkType
from cost_models.topology.numbering import Numbering
from cost_models.topology.paths import PathType
from cost_models.topology.routes import Route
from cost_models.topology.transport import Transport

_SAME_RANK = Route((), PathType.LOC, "local", 0.0, LOC_BYTES_PER_S, -1, LOC_BYTES_PER_S)


class Routing:
    """Routes of a cluster.

    Parameters
    ----------
    transports : routes inside each machine. machine_of_node : which one each node is.
    ranks_per_node : of each node. numbering : of all links. fabric : between nodes.
    """

    def __init__(
        self, transports: Sequence[Transport], machine_of_node: Sequence[int], ranks_per_node: int,
        numbering: Numbering, fabric: Fabric | None,
    ) -> None:  # fmt: skip
        self._transports, self._machine_of_node, self.ranks_per_node = transports, machine_of_node, ranks_per_node
        self._numbering, self._fabric = numbering, fabric

    def _of_node(self, node: int) -> Transport:
        return self._transports[self._machine_of_node[node]]

    def route(self, src: int, dst: int) -> Route:
        """Way from one rank to another, both of which there are."""
        if src == dst:
            return _SAME_RANK
        (source_node, source), (target_node, target) = (divmod(rank, self.ranks_per_node) for rank in (src, dst))
        if source_node != target_node:
            return self._between(source_node, source, target_node, target)
        local = self._of_node(source_node).local(source, target)
        start = self._numbering.start(source_node)
        return self._measure(tuple(start + link for link in local.links), local.path_type, local.kind)

    def _between(self, source_node: int, source: int, target_node: int, target: int) -> Route:
        up = self._of_node(source_node).egress_to(source, target)
        down = self._of_node(target_node).egress[target]
        numbers = self._numbering
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
        socket = self._of_node(source_node).machine.nets[up.net].socket
        return self._measure(links, PathType.NET, "socket" if socket else "net")

    def _over_spine(self, src: int, dst: int, here: int, there: int) -> tuple[int, int]:
        assert self._fabric is not None
        spine = int(self._fabric.spine_of(*(np.array([each]) for each in (src, dst, here, there)))[0])
        return self._numbering.spine_link(here, spine), self._numbering.spine_link(there, spine) + 1

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
        return self._numbering.capacities_bytes_per_s.tolist(), self._numbering.latencies_s.tolist()

    @cached_property
    def _is_host(self) -> list[bool]:
        links: list[bool] = self._numbering.host_links.tolist()
        return links

    def _is_memory(self, link: int) -> bool:
        return self._is_host[link] and self._numbering.ends(link)[2] is LinkType.MEM

"""The cluster: ranks on nodes, nodes on a fabric, and the route between any two ranks.

Nodes that are alike share one :class:`Machine`, so that a cluster of thousands costs no more than its arrays. Links are
numbered node by node (inside the machine, then each port's link to its leaf and back), then leaf by leaf (to the spine
and back); all are directed. Routes are composed on demand (`routing`), and pairs whose routes are alike known
(`pair_classes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cost_models.topology.fabric import Fabric
from cost_models.topology.links import Link
from cost_models.topology.machine import Machine
from cost_models.topology.nccl_settings import NcclSettings
from cost_models.topology.numbering import LinkTable, Numbering
from cost_models.topology.pair_classes import PairClasses
from cost_models.topology.routes import Route
from cost_models.topology.routing import Routing
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
    _alike: PairClasses = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """No pair has been classed: made here, as threads may ask for the first one together."""
        per_leaf = self.fabric.nodes_per_leaf if self.fabric is not None and self.fabric.kind == "fat-tree" else None
        known = None if self.slowed else self.machine_of_node
        alike = PairClasses(self.route, self.n_ranks, self.ranks_per_node, known, len(self.machines), per_leaf)
        object.__setattr__(self, "_alike", alike)

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
        return self._routing.route(int(src), int(dst))

    @cached_property
    def _routing(self) -> Routing:
        return Routing(self.transports, self.machine_of_node, self.ranks_per_node, self.numbering, self.fabric)

    def _check_ranks(self, *ranks: int) -> None:
        for rank in ranks:
            if not 0 <= rank < self.n_ranks:
                raise InputError("no such rank", got=rank, expected=f"0 to {self.n_ranks - 1}")

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
        return self._alike.of(sources, targets)

    @property
    def pair_classes(self) -> list[Route]:
        """One route of each class that :meth:`pair_class` has returned so far."""
        return list(self._alike.routes)


def _is_faster(graph: nx.DiGraph[str], link: Link) -> bool:
    return link.capacity_bytes_per_s > float(graph[link.source][link.target]["capacity_bytes_per_s"])

"""What a transfer asks of the links, for engines that share them over time.

A transfer alone takes ``overhead_s + moving_s``: nothing crosses a link during the overhead, and the data move at the
ceiling for the rest. At rate x of each of its flows it takes ``weights[l] x`` of link l's capacity; x is at most
``ceiling_bytes_per_s``. One send is one flow, and its weight 1 / efficiency of its kind of link (1 on links of the
host). The flows of an all-to-all of uneven parts are flows by themselves; what they leave each other, while all run, is
their rate alone. Another collective's flows depend on each other (a ring goes as fast as its slowest hop), so they are
one transfer whose weight on a link is the number of flows that cross it over the efficiency.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, permutations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cost_models.network.exchange import fair_rates, flow_terms, link_weights
from cost_models.network.flows import route_flows
from cost_models.network.loads import between_nodes
from cost_models.topology import ClusterTopology

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Demand:
    """One send, or one collective of a group.

    Attributes
    ----------
    overhead_s, moving_s : parts of its time alone.
    ceiling_bytes_per_s : rate of one of its flows, alone.
    links, weights : links of the topology it crosses, and the capacity it takes there per unit of rate.
    """

    overhead_s: float
    moving_s: float
    ceiling_bytes_per_s: float
    links: tuple[int, ...]
    weights: tuple[float, ...]


def exchange_demands(
    topology: ClusterTopology,
    profile: HardwareProfile,
    src: ArrayLike,
    dst: ArrayLike,
    n_bytes: ArrayLike,
    *,
    together: bool = False,
    largest: float = 1.0,
) -> list[Demand | None]:
    """A transfer for each flow src[i] -> dst[i]; None where nothing is sent.

    Parameters
    ----------
    src, dst : ranks, one dimension; all flows of one grouped exchange.
    n_bytes : size of all flows or of each.
    largest : as for :func:`cost_models.network.estimate_exchange_s`.
    together : each flow's rate alone is what the others of the exchange leave it, as in an all-to-all.

    >>> from cost_models.hardware import load_hardware
    >>> from cost_models.topology import load_topology
    >>> node, gpu = load_topology("dgx-h100"), load_hardware("h100-sxm")
    >>> sent, nothing = exchange_demands(node, gpu, [0, 1], [1, 1], 2**30)
    >>> len(sent.links), nothing
    (2, None)
    """
    sources, targets = np.asarray(src, np.int64), np.asarray(dst, np.int64)
    sizes = np.broadcast_to(np.asarray(n_bytes, np.float64), sources.shape)
    moving = np.flatnonzero((sources != targets) & (sizes > 0))
    demands: list[Demand | None] = [None] * len(sources)
    if not len(moving):
        return demands
    routes = route_flows(topology, sources[moving], targets[moving])
    overhead, ceilings, efficiency = flow_terms(
        topology, profile, routes, sources[moving], targets[moving], sizes[moving], largest
    )  # fmt: skip
    if together:
        ceilings = fair_rates(topology, routes, ceilings, efficiency)
    weights = link_weights(topology, routes.link, efficiency[routes.flow]).tolist()
    terms = zip(
        moving.tolist(), overhead.tolist(), ceilings.tolist(), routes.links, pairwise(routes.bounds), strict=True
    )
    for flow, overhead_s, ceiling, links, (begin, end) in terms:
        demands[flow] = Demand(overhead_s, float(sizes[flow]) / ceiling, ceiling, links, tuple(weights[begin:end]))
    return demands


def collective_demand(
    topology: ClusterTopology, profile: HardwareProfile, kind: str, ranks: ArrayLike, bytes_per_rank: int,
    seconds: float,
) -> Demand | None:  # fmt: skip
    """A collective of one group as a transfer; None where nothing is sent.

    Parameters
    ----------
    kind, ranks, bytes_per_rank : as for :func:`cost_models.network.estimate_collective_s`.
    seconds : its time alone.
    """
    group = np.asarray(ranks, np.int64)
    if len(group) < 2 or bytes_per_rank == 0:
        return None
    src, dst, size = _flows(topology, kind, group, bytes_per_rank)
    routes = route_flows(topology, src, dst)
    efficiency = np.array([profile.links[route.kind].efficiency for route in routes.classes])[routes.route_class]
    links, where = np.unique(routes.link, return_inverse=True)
    weights = link_weights(topology, routes.link, efficiency[routes.flow])
    taken = np.bincount(where, (size / size.max())[routes.flow] * weights)
    moving_s = float((taken * size.max() / topology.link_capacities_bytes_per_s[links]).max())
    moving_s = min(moving_s, seconds)
    ceiling = float(size.max()) / moving_s
    return Demand(seconds - moving_s, moving_s, ceiling, tuple(links.tolist()), tuple(taken.tolist()))


def _flows(
    topology: ClusterTopology, kind: str, group: IntArray, n_bytes: int
) -> tuple[IntArray, IntArray, FloatArray]:  # fmt: skip
    """Source, target and bytes of everything that a collective sends."""
    if kind == "all_to_all":
        src, dst = np.array(list(permutations(group.tolist(), 2)), np.int64).T
        return src, dst, np.full(len(src), n_bytes / len(group))
    n = len(group)
    sent = {
        "all_gather": (n - 1) * n_bytes,
        "all_reduce": 2 * (n - 1) * n_bytes / n,
        "broadcast": float(n_bytes),
        "reduce": float(n_bytes),
    }
    return _ring_flows(topology, group, sent.get(kind, (n - 1) * n_bytes / n))


def _ring_flows(topology: ClusterTopology, group: IntArray, sent: float) -> tuple[IntArray, IntArray, FloatArray]:
    """Rings through all nodes; as many as the smallest node has ranks, each crossing over another port."""
    nodes = topology.node_of[group]
    members = [group[nodes == node] for node in np.unique(nodes)]
    inside = [(node, np.roll(node, -1), sent) for node in members if len(node) > 1]
    rings = min(len(node) for node in members)
    flows = inside + [(*between_nodes(topology, group)[:2], sent / rings)] * (len(members) > 1)
    src, dst = (np.concatenate([flow[side] for flow in flows]) for side in (0, 1))
    return src, dst, np.concatenate([np.full(len(flow[0]), flow[2]) for flow in flows])

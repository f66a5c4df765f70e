"""NCCL's graphs: channels of a ring, a tree and NVLink SHARP, at the best speed for which every link's budget holds.

Speeds are tried downwards from the fastest path; at each, first with the shortest paths and one order for all channels,
then with other orders, longer paths and (rings between nodes) other NICs, until twice the speed of what was found would
be needed. Then channels of 25 GB/s and more are doubled at half the speed, and at last a ring's speed, or a tree's
inside the node, is raised as far as it goes.

Source: NVIDIA/nccl 2.30.7 src/graph/search.cc (ncclTopoCompute, ncclTopoDupChannels).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import replace

from cost_models.network.channels import BALANCED_TREE, RING, TREE, Channel, Graph
from cost_models.network.cuts import Cuts
from cost_models.network.node import Node
from cost_models.network.search import Search
from cost_models.topology.paths import PathType

_INTRA = {
    0: (40, 30, 20, 18, 15, 12, 10, 9, 7, 6, 5, 4, 3),
    90: (60, 50, 40, 30, 24, 20, 15, 12, 11, 6, 3),
    100: (90, 80, 70, 60, 50, 45, 40, 30, 24, 20, 19, 18),
}
_INTER = {
    0: (48, 30, 28, 24, 20, 18, 15, 12, 10, 9, 7, 6, 5, 4, 3, 2.4, 1.2, 0.24, 0.12),
    90: (48, 45, 42, 40, 30, 24, 22, 20, 17.5, 15, 12, 6, 3, 2.4, 1.2, 0.24, 0.12),
    100: (96, 86, 80, 48, 45.1, 42, 40, 30, 24, 22, 20, 17.5, 15, 12, 6, 3, 2.4, 1.2, 0.24, 0.12),
}
MAX_RINGS = 32
MAX_NVLS_HEADS = 32
_MANY_GPUS = 16
"""On one NVSwitch where all GPUs are alike, further ones only make channels longer."""
_MAX_STEPS = 2**15
"""Steps of all searches of one graph together; NCCL allows 2^19, which only odd PCIe trees use up."""


def speeds(sm: int, several_nodes: bool) -> tuple[float, ...]:
    """Channel speeds that NCCL tries, GB/s."""
    table = _INTER if several_nodes else _INTRA
    return table[max(least for least in table if least <= max(sm, 0))]


_FOUND: dict[Hashable, Graph] = {}


def find_graph(node: Node, pattern: str, least: int = 1, most: int = MAX_RINGS, cross_nic: int = 2) -> Graph:
    """Channels of a ring or tree in a node; remembered, as many nodes and groups of GPUs are alike.

    Parameters
    ----------
    node : the machine; with ports where it is one of several.
    least, most : channels wanted.
    cross_nic : whether a ring may leave by another NIC than it came in: 0 never, 1 always, 2 where that is better.

    Returns
    -------
    GPUs and ports of the channels are numbered as in ``node``. Where nothing fits, one channel of 0.1 GB/s in the order
    of the GPUs, as NCCL falls back to.
    """
    key = (node.signature, pattern, least, most, cross_nic)
    if key not in _FOUND:
        if len(_FOUND) >= 256:
            _FOUND.clear()
        _FOUND[key] = _find(node, pattern, least, most, cross_nic)
    return _FOUND[key]


def _find(node: Node, pattern: str, least: int, most: int, cross_nic: int) -> Graph:
    if node.n_gpus == 1 and not node.nets:
        return Graph(pattern, (Channel((0,)),), 0.0, 0.0)
    if node.n_gpus > _MANY_GPUS and node.is_uniform:
        few = Node(node.transport, bool(node.nets), node.local_ranks[:_MANY_GPUS])
        return _prolong(find_graph(few, pattern, least, most, cross_nic), node)
    finder = _Finder(node, pattern, least, most, cross_nic if pattern == RING else 0)
    found = finder.raise_speed(_double(finder.first_pass(), node.sm, most))
    if found.channels:
        return found
    net = node.nets[0] if node.nets else -1
    only = Channel(tuple(range(node.n_gpus)), net, net)
    return Graph(pattern, (only,), 0.1, 0.1, PathType.SYS, PathType.SYS)


def _prolong(graph: Graph, node: Node) -> Graph:
    """Channels through some of a switch's GPUs led through all of them; no more than each of the others can pass on."""
    rest = tuple(range(len(graph.channels[0].gpus), node.n_gpus))
    passing = int(min(map(node.nvlink_gb_per_s, rest)) / graph.intra_gb_per_s + 1e-9)
    longer = tuple(replace(each, gpus=(*each.gpus[:-1], *rest, each.gpus[-1])) for each in graph.channels[:passing])
    return replace(graph, channels=longer)


def find_nvls(node: Node) -> Graph:
    """NVLink SHARP: a channel for each GPU (head) that the switches multicast from; empty where there is none.

    Each head takes twice the speed of its own link to the switch and once that of all others', so n channels take
    (n + 1) times their speed from every link.
    """
    rate = min((link for link in map(node.nvlink_gb_per_s, range(node.n_gpus))), default=0.0)
    if node.sm < 90 or not node.has_nvswitch or node.n_gpus < 2 or not rate:
        return Graph("nvls")
    heads = min(node.n_gpus, MAX_NVLS_HEADS)
    fitting = (speed for speed in speeds(node.sm, False) if speed * (heads + 1) <= rate + 1e-6)
    intra = next(fitting, 0.0)
    inter = min([intra, *node.net_gb_per_s.values()])
    if node.nets:
        heads = min(heads, len({node.transport.egress[rank].net for rank in node.local_ranks}))
    channels = tuple(Channel((head,)) for head in range(heads)) if intra else ()
    return Graph("nvls", channels, intra, inter, PathType.NVL, PathType.NVL, same_channels=False)


def find_collnet(node: Node) -> Graph:
    """CollNetDirect: a channel for each NIC, whose GPU talks to all others of the node over the switches.

    As a head a GPU takes the speed once for each other GPU, and once for each other head: n - 1 and heads - 1 times.
    """
    rate = min((link for link in map(node.nvlink_gb_per_s, range(node.n_gpus))), default=0.0)
    heads = len({node.transport.egress[rank].net for rank in node.local_ranks}) if node.nets else 0
    crossings = node.n_gpus - 1 + heads - 1
    if not heads or not node.has_nvswitch or not rate:
        return Graph("collnet")
    fitting = (speed for speed in speeds(node.sm, True) if speed * crossings <= rate + 1e-6)
    speed = min([next(fitting, 0.0), *node.net_gb_per_s.values()])
    channels = tuple(Channel((head,)) for head in range(heads)) if speed else ()
    return Graph("collnet", channels, speed, speed, PathType.NVL, PathType.PXB, same_channels=False)


def _double(graph: Graph, sm: int, most: int) -> Graph:
    """Channels of half the speed, twice as many: one SM does not move that much."""
    count = len(graph.channels)
    if graph.intra_gb_per_s < 25 or (sm > 80 and graph.intra_gb_per_s < 50 and count > 4) or not count:
        return graph
    doubled = (graph.channels * 2)[: min(2 * count, most)]
    parts = -(-len(doubled) // count)
    return replace(
        graph, channels=doubled,
        intra_gb_per_s=graph.intra_gb_per_s / parts, inter_gb_per_s=graph.inter_gb_per_s / parts,
    )  # fmt: skip


class _Finder:
    def __init__(self, node: Node, pattern: str, least: int, most: int, cross_nic: int) -> None:
        self.node, self.least, self.most, self.cross_nic = node, least, most, cross_nic
        self.pattern = pattern
        self.speeds = speeds(node.sm, bool(node.nets))
        self.steps = _MAX_STEPS
        self.cuts: dict[tuple[bool, bool, PathType, PathType], Cuts] = {}
        self.intra = sorted({way.type for way in node.gpu_ways.values()}) or [PathType.LOC]
        self.inter = sorted({way.type for way in node.out_ways.values()}) or [PathType.PIX]
        split = node.sm >= 90 and pattern == BALANCED_TREE
        self.patterns = (pattern, TREE) if split else (pattern,)

    def first_pass(self) -> Graph:
        """Best graph of all speeds that are worth a try."""
        total = self.node.total_gb_per_s
        if self.node.n_gpus > 1 and self.pattern != RING:
            total *= self.node.n_gpus / (self.node.n_gpus - 1)
        best, top = Graph(self.pattern), self._first_speed(total)
        for place in range(top, len(self.speeds)):
            if best.channels and self.speeds[place] <= 0.49 * best.inter_gb_per_s:
                break
            for wanted in self._variants(self.speeds[place]):
                search = self._search(wanted, best, self.least, self.most)
                if search is None:
                    continue
                best = search.best
                if search.perfect or len(best.channels) * best.inter_gb_per_s >= self.node.total_gb_per_s:
                    return best
                if self.steps < 0 and best.channels:
                    return best
        return best

    def _first_speed(self, total: float) -> int:
        fits = (speed <= self.node.max_gb_per_s and speed * self.least <= total for speed in self.speeds)
        return next((place for place, fit in enumerate(fits) if fit), len(self.speeds) - 1)

    def _variants(self, speed: float) -> Iterator[Graph]:
        """Path types and orders to try at a speed, the best ones first."""
        for cross_nic in {0: (0,), 1: (1,)}.get(self.cross_nic, (0, 2)) if len(self.node.nets) > 1 else (0,):
            for inter in self.inter:
                for intra in [kind for kind in self.intra if not self.node.nets or kind <= max(inter, self.intra[0])]:
                    for pattern in self.patterns:
                        for same in (True, False):
                            yield Graph(pattern, (), speed, speed, intra, inter, same, cross_nic)

    def raise_speed(self, graph: Graph) -> Graph:
        """The same channels at higher speeds, where links allow."""
        faster = [speed for speed in reversed(self.speeds) if speed > graph.inter_gb_per_s]
        for speed in faster if graph.channels else []:
            if graph.pattern != RING and speed > 2 * graph.inter_gb_per_s:
                break
            inter = speed if graph.pattern == RING else graph.inter_gb_per_s
            wanted = replace(graph, channels=(), intra_gb_per_s=speed, inter_gb_per_s=inter)
            search = self._search(wanted, graph, len(graph.channels), self.most)
            if search is None or search.best is graph:
                break
            graph = search.best
        return graph

    def _search(self, wanted: Graph, best: Graph, least: int, most: int) -> Search | None:
        """A search, run; None where it could find nothing better."""
        cuts = self._cuts(wanted)
        reachable = int(min(cuts.most_channels(wanted.intra_gb_per_s, wanted.inter_gb_per_s), most))
        if not _can_improve(wanted, best, least, reachable, cuts):
            return None
        search = Search(self.node, wanted, best, least, most, cuts)
        start = search.steps
        search.run()
        self.steps -= start - search.steps
        return search

    def _cuts(self, wanted: Graph) -> Cuts:
        ring = wanted.pattern == RING
        what = ring, ring and bool(wanted.cross_nic), wanted.type_intra, wanted.type_inter
        if what not in self.cuts:
            self.cuts[what] = Cuts(self.node, *what)
        return self.cuts[what]


def _can_improve(wanted: Graph, known: Graph, least: int, reachable: int, cuts: Cuts) -> bool:
    """Whether as many channels as there may be would carry more than the known graph, or as much over less."""
    rate = reachable * wanted.intra_gb_per_s
    if reachable < max(least, 1) or rate != known.bus_gb_per_s:
        return reachable >= max(least, 1) and rate > known.bus_gb_per_s
    alike = (wanted.pattern, wanted.cross_nic) == (known.pattern, known.cross_nic)
    return alike and reachable * cuts.least_hops < known.hops

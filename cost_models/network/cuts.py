"""What a search for channels can reach at most, so that none is begun that cannot improve on what is known.

Every channel leaves and reaches all GPUs (but its ends), by the first and last links of ways between them, and comes in
and goes out by a port, over what all ways of that port have in common. Each of these is a cut: as many channels fit as
may cross its links, all taken together. And no channel crosses fewer links than the shortest ways have.

A cut depends on which ways are near enough, not on the speed, so it is found once for all speeds that are tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import inf

from cost_models.network.node import Node, Way
from cost_models.topology.paths import PathType

End = tuple[int, float]
"""A link, and what of a channel's speed it carries."""


class Cuts:
    """Cuts of a node's channels of one pattern, over ways that are near enough.

    Parameters
    ----------
    ring : whether a channel's ends are different GPUs (a ring) or the same (a tree).
    any_port : whether it may leave by another port than it came in by.
    farthest_inside, farthest_outside : worst ways between GPUs, and to ports.
    """

    def __init__(
        self, node: Node, ring: bool, any_port: bool, farthest_inside: PathType, farthest_outside: PathType
    ) -> None:
        self.node, self.ring, self.any_port = node, ring, any_port
        self.inside = {hop: way for hop, way in node.gpu_ways.items() if way.type <= farthest_inside and way.links}
        self.outside = {end: way for end, way in node.out_ways.items() if way.type <= farthest_outside and way.links}

    def most_channels(self, intra_gb_per_s: float, inter_gb_per_s: float) -> float:
        """Channels that all cuts let through, at these speeds inside and to ports."""
        most = inf
        for ends in (self.exits, self.entries) if self._hops_inside else ():
            passing = [sum(self._fitting(*end, intra_gb_per_s) for end in each) for each in ends]
            everywhere = self._hops_inside == self.node.n_gpus
            most = min(most, sum(passing) // self._hops_inside, *(passing if everywhere else ()))
        if self.node.nets:
            out, into = ([self._through(net, inter_gb_per_s, turn) for net in self.node.nets] for turn in (0, 1))
            whole = int(inter_gb_per_s)  # NCCL counts what is left of a port in whole GB/s
            ports = [rate // whole if whole else inf for rate in self.node.net_gb_per_s.values()]
            most = min(most, sum(out), sum(map(min, into, ports)))
        return most

    @cached_property
    def least_hops(self) -> int:
        """Links that a channel crosses at least."""
        inside = min((len(way.links) for way in self.inside.values()), default=0)
        return self._hops_inside * inside + min(self._hops_outside(), default=0)

    @property
    def _hops_inside(self) -> int:
        return self.node.n_gpus - (not self.ring or bool(self.node.nets))

    def _hops_outside(self) -> Iterator[int]:
        """Links from a port and to one, of the best ends over each port, or over all of them."""
        apart = self.ring and self.node.n_gpus > 1
        for ports in [self.node.nets] if self.any_port else [(net,) for net in self.node.nets]:
            ways = ((gpu, len(way.links)) for (gpu, net), way in self.outside.items() if net in ports)
            shortest: dict[int, int] = {}
            for gpu, hops in ways:
                shortest[gpu] = min(shortest.get(gpu, hops), hops)
            ends = sorted(shortest.values())
            if len(ends) > apart:
                yield ends[0] + ends[apart]

    @cached_property
    def exits(self) -> list[list[End]]:
        """For each GPU, the first links of its ways to others."""
        return self._ends(0)

    @cached_property
    def entries(self) -> list[list[End]]:
        """For each GPU, the last links of the ways to it."""
        return self._ends(-1)

    def _ends(self, place: int) -> list[list[End]]:
        ends: list[set[End]] = [set() for _ in range(self.node.n_gpus)]
        for hop, way in self.inside.items():
            ends[hop[place]].add((way.links[place], way.shares[place]))
        return [sorted(each) for each in ends]

    def _through(self, net: int, gb_per_s: float, turn: int) -> float:
        """Channels that may go out by a port, or come in by it (turn 1), over what all its ways have in common."""
        links = self._common[net].items()
        return min((self._fitting(link ^ turn, share, gb_per_s) for link, share in links), default=0)

    def _fitting(self, link: int, share: float, gb_per_s: float) -> int:
        return int(self.node.capacities[link] / (share * gb_per_s) + 1e-9)

    @cached_property
    def _common(self) -> Mapping[int, Mapping[int, float]]:
        """By port, the links that each way to it takes, with their least share."""
        ways: dict[int, list[Way]] = {net: [] for net in self.node.nets}
        for (_, net), way in self.outside.items():
            ways[net].append(way)
        return {net: _shared(each) for net, each in ways.items()}


def _shared(ways: Sequence[Way]) -> dict[int, float]:
    links = set.intersection(*(set(way.links) for way in ways)) if ways else set()
    return {link: min(way.shares[way.links.index(link)] for way in ways) for link in links}

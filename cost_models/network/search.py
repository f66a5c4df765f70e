"""NCCL's search for channels: in which order a ring or tree visits a node's GPUs, so that every link's budget holds.

Each channel takes its speed from every link that it crosses. For one speed, channels are added one after the other as
long as they fit; first the GPUs' own order or the last channel's is tried, then others, nearest GPU first. A search
ends when it is perfect or has taken too many steps, as in NCCL.

Between nodes a channel comes in by one NIC, visits all GPUs and goes out (a tree: by the NIC of its first GPUs).

Source: NVIDIA/nccl 2.30.7 src/graph/search.cc (ncclTopoSearchRec and what it calls, ncclTopoCompareGraphs).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from cost_models.network.node import Node, Way
from cost_models.topology.paths import PathType

RING, BALANCED_TREE, TREE = "ring", "balanced tree", "tree"
_STEPS, _STEPS_SAME = 2**12, 2**8
"""Steps of one search; NCCL allows 2^14 without the test that spares hopeless ones."""


@dataclass(frozen=True)
class Channel:
    """One channel: GPUs (local ranks) in order, and the ports by which it comes in and goes out (-1 inside a node)."""

    gpus: tuple[int, ...]
    net_in: int = -1
    net_out: int = -1


@dataclass(frozen=True)
class Graph:
    """Channels of one pattern, and what each may carry.

    Attributes
    ----------
    intra_gb_per_s, inter_gb_per_s : of each channel, inside a node and between nodes.
    type_intra, type_inter : worst paths used.
    same_channels : all channels visit the GPUs in one order.
    """

    pattern: str
    channels: tuple[Channel, ...] = ()
    intra_gb_per_s: float = 0.0
    inter_gb_per_s: float = 0.0
    type_intra: PathType = PathType.LOC
    type_inter: PathType = PathType.LOC
    same_channels: bool = True
    cross_nic: int = 0
    hops: int = 0

    @property
    def bus_gb_per_s(self) -> float:
        """What all channels carry inside a node."""
        return len(self.channels) * self.intra_gb_per_s


class Search:
    """One search: a pattern at one speed and with one worst path type."""

    def __init__(self, node: Node, wanted: Graph, best: Graph, least: int, most: int) -> None:
        self.node, self.wanted, self.best, self.least, self.most = node, wanted, best, least, most
        self.left = list(node.capacities)
        self.ports = dict(node.net_gb_per_s)
        self.steps = _STEPS_SAME if wanted.same_channels else _STEPS
        self.hops, self.channels = 0, list[Channel]()
        self.perfect = False
        self.exits, self.entries = self._ends(last=False), self._ends(last=True)
        self.bound = self._bound()

    def run(self) -> Graph:
        """The best graph: one found here, or the one that was known."""
        self._add_channel()
        return self.best

    def _ends(self, last: bool) -> list[list[tuple[int, float]]]:
        """For each GPU, the first links of its ways to others (or the last of those to it), and their shares."""
        ends: list[set[tuple[int, float]]] = [set() for _ in range(self.node.n_gpus)]
        for (source, target), way in self.node.gpu_ways.items():
            if way.type <= self.wanted.type_intra:
                place = -1 if last else 0
                ends[target if last else source].add((way.links[place], way.shares[place]))
        return [sorted(each) for each in ends]

    def _bound(self) -> int:
        """Channels beyond which the ports, or in a ring some GPU's links, are used up."""
        if self.node.nets:
            speed = max(int(self.wanted.inter_gb_per_s), 1)
            return sum(int(rate // speed) for rate in self.ports.values())
        if self.wanted.pattern != RING:
            return self.most
        rates = [sum(self.left[link] for link in {link for link, _ in each}) for each in self.exits]
        return int(min(rates, default=0.0) / self.wanted.intra_gb_per_s + 1e-9)

    @property
    def _over(self) -> bool:
        return self.perfect or self.steps <= 0

    def _add_channel(self) -> None:
        if self._over or self._hopeless():
            return
        for net in self._entry_ports():
            if net >= 0:
                self.ports[net] -= int(self.wanted.inter_gb_per_s)
            self._start_channel(net)
            if net >= 0:
                self.ports[net] += int(self.wanted.inter_gb_per_s)

    def _hopeless(self) -> bool:
        """Whether too many GPUs can no longer be left, or reached, for another channel to visit all of them."""
        speed, left = self.wanted.intra_gb_per_s, self.left
        allowed = 0 if self.wanted.pattern == RING and not self.node.nets else 1
        for ends in (self.exits, self.entries):
            used_up = sum(not any(left[link] >= speed * share for link, share in each) for each in ends)
            if used_up > allowed:
                return True
        return False

    def _entry_ports(self) -> Iterable[int]:
        nets = self.node.nets
        if not nets:
            return (-1,)
        turned = [nets[(len(self.channels) + i) % len(nets)] for i in range(len(nets))]
        fitting = [net for net in turned if self.ports[net] >= int(self.wanted.inter_gb_per_s)]
        if self.wanted.cross_nic == 2 and len(self.channels) % 2:
            return [net for net in fitting if net == self.channels[-1].net_out]
        return fitting

    def _start_channel(self, net: int) -> None:
        if self.channels and (self.wanted.same_channels or net < 0):
            self._visit((), self.channels[-1].gpus[0], net, -1, self.channels[-1].gpus)
        if self.channels and self.wanted.same_channels:
            return
        if not self.channels and (net < 0 or not self.node.has_nvswitch):
            self._visit((), 0, net, -1, tuple(range(self.node.n_gpus)))
        for gpu in range(self.node.n_gpus) if net < 0 else self._nearest_gpus(net):
            self._visit((), gpu, net, -1, None)

    def _nearest_gpus(self, net: int) -> list[int]:
        ways = {gpu: self.node.out_ways[gpu, net] for gpu in range(self.node.n_gpus)}
        best = min(way.type for way in ways.values())
        near = [gpu for gpu, way in ways.items() if way.type == best]
        return sorted(near, key=lambda gpu: self.node.transport.egress[self.node.local_ranks[gpu]].net != net)

    def _visit(
        self, before: tuple[int, ...], gpu: int, net_in: int, net_out: int, order: tuple[int, ...] | None
    ) -> None:
        """Extend a channel by a GPU, and go on from there."""
        if self._over:
            return
        self.steps -= 1
        way = self.node.gpu_ways[before[-1], gpu] if before else self.node.in_way(net_in, gpu) if net_in >= 0 else None
        if not self._take(way, 1):
            return
        gpus = (*before, gpu)
        if not self._can_end(gpus, net_in):
            pass
        elif self._leaves(gpus, net_in, net_out):
            self._leave(gpus, net_in, order)
        elif len(gpus) < self.node.n_gpus:
            for following in self._next_gpus(gpus, net_in, order):
                self._visit(gpus, following, net_in, net_out, order)
        else:
            self._close(Channel(gpus, net_in, net_out))
        self._take(way, -1)

    def _can_end(self, gpus: tuple[int, ...], net_in: int) -> bool:
        """Whether a ring that came in by a port can still end at a GPU from which it reaches a port to leave by."""
        if net_in < 0 or self.wanted.pattern != RING:
            return True
        ends = [gpu for gpu in range(self.node.n_gpus) if gpu not in gpus] or [gpus[-1]]
        return any(self._fits(self.node.out_ways[gpu, net]) for gpu in ends for net in self._exit_ports(gpu, net_in))

    def _leaves(self, gpus: tuple[int, ...], net_in: int, net_out: int) -> bool:
        """Whether the channel goes back to a port here: a ring at its end, a tree at its first GPU."""
        if net_in < 0 or net_out >= 0:
            return False
        return len(gpus) == (self.node.n_gpus if self.wanted.pattern == RING else 1)

    def _leave(self, gpus: tuple[int, ...], net_in: int, order: tuple[int, ...] | None) -> None:
        for net in self._exit_ports(gpus[-1], net_in):
            way = self.node.out_ways[gpus[-1], net]
            if not self._take(way, 1):
                continue
            if len(gpus) == self.node.n_gpus:
                self._close(Channel(gpus, net_in, net))
            else:
                for following in self._next_gpus(gpus, net_in, order):
                    self._visit(gpus, following, net_in, net, order)
            self._take(way, -1)

    def _exit_ports(self, gpu: int, net_in: int) -> list[int]:
        if self.wanted.pattern != RING or not self.wanted.cross_nic:
            return [net_in]
        nets = sorted(self.node.nets, key=lambda net: self.node.out_ways[gpu, net].type)
        if self.wanted.cross_nic == 2 and len(self.channels) % 2:
            return [net for net in nets if net == self.channels[-1].net_in]
        return nets

    def _next_gpus(self, gpus: tuple[int, ...], net_in: int, order: tuple[int, ...] | None) -> list[int]:
        """GPUs to try next: nearest first, but those near the port last, as the channel has to end at one of them."""
        if order is not None:
            return [order[len(gpus)]]
        here, count = gpus[-1], self.node.n_gpus
        others = [(here + i) % count for i in range(1, count) if (here + i) % count not in gpus]
        ways = self.node.gpu_ways
        inside = {gpu: (-ways[here, gpu].gb_per_s, len(ways[here, gpu].links)) for gpu in others}
        if net_in < 0 or self.wanted.pattern != RING:
            return sorted(others, key=inside.__getitem__)
        outside = {gpu: self.node.out_ways[gpu, net_in] for gpu in others}
        near = sorted(others, key=lambda gpu: (-outside[gpu].gb_per_s, len(outside[gpu].links), *inside[gpu]))
        return near if len(others) == 1 or len(set(inside.values())) > 1 else near[::-1]

    def _close(self, channel: Channel) -> None:
        """Count a finished channel (a ring inside a node first returns to its first GPU) and add the next one."""
        back = None
        if self.wanted.pattern == RING and channel.net_in < 0 and self.node.n_gpus > 1:
            back = self.node.gpu_ways[channel.gpus[-1], channel.gpus[0]]
            if not self._take(back, 1):
                return
        self.channels.append(channel)
        self._compare()
        if len(self.channels) >= self.bound:
            self.steps = 0
        elif len(self.channels) < self.most:
            self._add_channel()
        self.channels.pop()
        self._take(back, -1)

    def _compare(self) -> None:
        found, known = self.wanted, self.best
        if len(self.channels) < self.least:
            return
        rate, known_rate = len(self.channels) * found.intra_gb_per_s, known.bus_gb_per_s
        alike = (found.pattern, found.cross_nic) == (known.pattern, known.cross_nic)
        if rate > known_rate or (rate == known_rate and alike and self.hops < known.hops):
            self.best = replace(found, channels=tuple(self.channels), hops=self.hops)
            self.perfect = len(self.channels) == self.most

    def _take(self, way: Way | None, sign: int) -> bool:
        """Take a channel's speed from the links of a way, or give it back; nothing is taken if it is not left."""
        if way is None:
            return True
        if sign > 0 and not self._fits(way):
            return False
        speed = sign * self._speed(way)
        for link, share in zip(way.links, way.shares, strict=True):
            self.left[link] = round(self.left[link] - speed * share, 3)
        self.hops += sign * len(way.links)
        return True

    def _speed(self, way: Way) -> float:
        return self.wanted.intra_gb_per_s if way.inside else self.wanted.inter_gb_per_s

    def _fits(self, way: Way) -> bool:
        speed, left = self._speed(way), self.left
        if way.type > (self.wanted.type_intra if way.inside else self.wanted.type_inter):
            return False
        return all(left[link] >= speed * share for link, share in zip(way.links, way.shares, strict=True))

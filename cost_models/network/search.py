"""NCCL's search for channels: in which order a ring or tree visits a node's GPUs, so that every link's budget holds.

Each channel takes its speed from every link that it crosses. For one speed, channels are added one after the other as
long as they fit; first the GPUs' own order or the last channel's is tried, then others, nearest GPU first. A search
ends when it is perfect or has taken too many steps, as in NCCL.

Between nodes a channel comes in by one NIC, visits all GPUs and goes out (a tree: by the NIC of its first GPUs).

What a step asks again and again (what a way costs at this speed, which GPU is tried next) is found once per search.

Source: NVIDIA/nccl 2.30.7 src/graph/search.cc (ncclTopoSearchRec and what it calls, ncclTopoCompareGraphs).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from cost_models.network.budget import MB_PER_GB, Budget, Cost, cost_of
from cost_models.network.channels import RING, Channel, Graph
from cost_models.network.cuts import Cuts, End
from cost_models.network.node import Node

_STEPS, _STEPS_SAME = 2**12, 2**8
"""Steps of one search; NCCL allows 2^14 without the test that spares hopeless ones."""


class Search:
    """One search: a pattern at one speed and with one worst path type.

    Parameters
    ----------
    cuts : of the same ways, with the links by which GPUs are left and reached.
    """

    def __init__(self, node: Node, wanted: Graph, best: Graph, least: int, most: int, cuts: Cuts) -> None:
        self.node, self.wanted, self.best, self.least, self.most = node, wanted, best, least, most
        self.ring, self.nets, self.n_gpus = wanted.pattern == RING, node.nets, node.n_gpus
        self.budget = Budget(node.capacities)
        self.left, self._take, self._give_back = self.budget.left, self.budget.take, self.budget.give_back
        self.ports = dict(node.net_gb_per_s)
        self.port_speed = int(wanted.inter_gb_per_s)
        self.steps = _STEPS_SAME if wanted.same_channels else _STEPS
        self.channels = list[Channel]()
        self.perfect = False
        speeds, types = (wanted.intra_gb_per_s, wanted.inter_gb_per_s), (wanted.type_intra, wanted.type_inter)
        self.inside = {hop: cost_of(way, speeds[0], types[0]) for hop, way in node.gpu_ways.items()}
        self.outward = {end: cost_of(way, speeds[1], types[1]) for end, way in node.out_ways.items()}
        self.inward = {
            (net, gpu): cost and tuple((link ^ 1, taken) for link, taken in reversed(cost))
            for (gpu, net), cost in self.outward.items()
        }
        self.exits, self.entries = self._ends(cuts.exits), self._ends(cuts.entries)
        self.bound = self._bound()

    def run(self) -> Graph:
        """The best graph: one found here, or the one that was known."""
        self._add_channel()
        return self.best

    def _ends(self, by_gpu: Sequence[Sequence[End]]) -> list[list[tuple[int, float]]]:
        """For each GPU, links and what a channel takes of them."""
        mb_per_s = self.wanted.intra_gb_per_s * MB_PER_GB
        return [[(link, mb_per_s * share) for link, share in each] for each in by_gpu]

    def _bound(self) -> int:
        """Channels beyond which the ports, or in a ring some GPU's links, are used up."""
        if self.nets:
            return sum(int(rate // max(self.port_speed, 1)) for rate in self.ports.values())
        if not self.ring:
            return self.most
        rates = [sum(self.left[link] for link in {link for link, _ in each}) for each in self.exits]
        return int(min(rates, default=0.0) / MB_PER_GB / self.wanted.intra_gb_per_s + 1e-9)

    def _add_channel(self) -> None:
        if self.perfect or self.steps <= 0 or self._hopeless():
            return
        for net in self._entry_ports():
            if net >= 0:
                self.ports[net] -= self.port_speed
            self._start_channel(net)
            if net >= 0:
                self.ports[net] += self.port_speed

    def _hopeless(self) -> bool:
        """Whether too many GPUs can no longer be left, or reached, for another channel to visit all of them."""
        left = self.left
        allowed = 0 if self.ring and not self.nets else 1
        for ends in (self.exits, self.entries):
            used_up = 0
            for each in ends:
                for link, taken in each:
                    if left[link] >= taken:
                        break
                else:
                    used_up += 1
            if used_up > allowed:
                return True
        return False

    def _entry_ports(self) -> Iterable[int]:
        nets = self.nets
        if not nets:
            return (-1,)
        turned = [nets[(len(self.channels) + i) % len(nets)] for i in range(len(nets))]
        fitting = [net for net in turned if self.ports[net] >= self.port_speed]
        if self.wanted.cross_nic == 2 and len(self.channels) % 2:
            return [net for net in fitting if net == self.channels[-1].net_out]
        return fitting

    def _start_channel(self, net: int) -> None:
        if self.channels and (self.wanted.same_channels or net < 0):
            self._visit((), self.channels[-1].gpus[0], net, -1, self.channels[-1].gpus)
        if self.channels and self.wanted.same_channels:
            return
        if not self.channels and (net < 0 or not self.node.has_nvswitch):
            self._visit((), 0, net, -1, tuple(range(self.n_gpus)))
        for gpu in range(self.n_gpus) if net < 0 else self.node.near_port(net):
            self._visit((), gpu, net, -1, None)

    def _visit(
        self, before: tuple[int, ...], gpu: int, net_in: int, net_out: int, order: tuple[int, ...] | None
    ) -> None:
        """Extend a channel by a GPU, and go on from there."""
        if self.perfect or self.steps <= 0:
            return
        self.steps -= 1
        cost = self.inside[before[-1], gpu] if before else self.inward[net_in, gpu] if net_in >= 0 else ()
        if not self._take(cost):
            return
        gpus = (*before, gpu)
        if not self._can_end(gpus, net_in):
            pass
        elif net_in >= 0 and net_out < 0 and len(gpus) == (self.n_gpus if self.ring else 1):
            self._leave(gpus, net_in, order)
        elif len(gpus) < self.n_gpus:
            for following in self._next_gpus(gpus, net_in, order):
                self._visit(gpus, following, net_in, net_out, order)
        else:
            self._close(Channel(gpus, net_in, net_out))
        self._give_back(cost)

    def _can_end(self, gpus: tuple[int, ...], net_in: int) -> bool:
        """Whether a ring that came in by a port can still end at a GPU from which it reaches a port to leave by."""
        if net_in < 0 or not self.ring:
            return True
        ends: Iterable[int] = range(self.n_gpus) if len(gpus) < self.n_gpus else gpus[-1:]
        for gpu in ends:
            if gpu in gpus and len(gpus) < self.n_gpus:
                continue
            for net in self._exit_ports(gpu, net_in):
                if self.budget.fits(self.outward[gpu, net]):
                    return True
        return False

    def _leave(self, gpus: tuple[int, ...], net_in: int, order: tuple[int, ...] | None) -> None:
        """Go to a port: at a ring's end, at a tree's first GPU."""
        for net in self._exit_ports(gpus[-1], net_in):
            cost = self.outward[gpus[-1], net]
            if not self._take(cost):
                continue
            if len(gpus) == self.n_gpus:
                self._close(Channel(gpus, net_in, net))
            else:
                for following in self._next_gpus(gpus, net_in, order):
                    self._visit(gpus, following, net_in, net, order)
            self._give_back(cost)

    def _exit_ports(self, gpu: int, net_in: int) -> Sequence[int]:
        if not self.ring or not self.wanted.cross_nic:
            return (net_in,)
        nets = self.node.ports_from(gpu)
        if self.wanted.cross_nic == 2 and len(self.channels) % 2:
            return [net for net in nets if net == self.channels[-1].net_in]
        return nets

    def _next_gpus(self, gpus: tuple[int, ...], net_in: int, order: tuple[int, ...] | None) -> Sequence[int]:
        """GPUs to try next: nearest first, but those near the port last, as the channel has to end at one of them."""
        if order is not None:
            return (order[len(gpus)],)
        here = gpus[-1]
        if net_in < 0 or not self.ring:
            return [gpu for gpu in self.node.nearest(here) if gpu not in gpus]
        near = [gpu for gpu in self.node.nearest_by_port(here, net_in) if gpu not in gpus]
        ranks = self.node.distances(here)
        alike = len({ranks[gpu] for gpu in near}) == 1
        return near[::-1] if len(near) > 1 and alike else near

    def _close(self, channel: Channel) -> None:
        """Count a finished channel (a ring inside a node first returns to its first GPU) and add the next one."""
        back: Cost | None = ()
        if self.ring and channel.net_in < 0 and self.n_gpus > 1:
            back = self.inside[channel.gpus[-1], channel.gpus[0]]
            if not self._take(back):
                return
        self.channels.append(channel)
        self._compare()
        if len(self.channels) >= self.bound:
            self.steps = 0
        elif len(self.channels) < self.most:
            self._add_channel()
        self.channels.pop()
        self._give_back(back)

    def _compare(self) -> None:
        found, known = self.wanted, self.best
        if len(self.channels) < self.least:
            return
        rate, known_rate = len(self.channels) * found.intra_gb_per_s, known.bus_gb_per_s
        alike = (found.pattern, found.cross_nic) == (known.pattern, known.cross_nic)
        if rate > known_rate or (rate == known_rate and alike and self.budget.hops < known.hops):
            self.best = replace(found, channels=tuple(self.channels), hops=self.budget.hops)
            self.perfect = len(self.channels) == self.most

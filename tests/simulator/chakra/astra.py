"""Which nodes ASTRA-sim would run when, by the rules of its workload layer: a stand-in for it in tests.

A node starts when all its dependencies are done and its unit is free, of several the one with the lowest id; a rank has
one unit for computation and one for communication (astra-sim/workload/Workload.cc, HardwareResource.cc). A message
arrives whether or not its receive is posted, and a receive ends once its message has come. Collectives end for all
members of a group together. Sizes and tags are looked at as ASTRA-sim does: a receive takes the message of its sender,
its tag and its size.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from typing import Any

from traces.chakra.files import attributes
from traces.chakra.schema import COLL, RECV, SEND


class Astra:
    """Runs the nodes of all ranks; ``ended_ns`` has every node that ran."""

    def __init__(self, per_rank: list[list[Any]], groups: dict[str, list[int]]) -> None:
        self.nodes = [{node.id: node for node in nodes} for nodes in per_rank]
        self.values = [{node.id: attributes(node) for node in nodes} for nodes in per_rank]
        self.groups = {"0": list(range(len(per_rank))), **groups}
        self.missing = [{n.id: len({*n.ctrl_deps, *n.data_deps}) for n in nodes} for nodes in per_rank]
        self.followers: list[dict[int, list[int]]] = []
        for nodes in per_rank:
            of = defaultdict(list)
            for node in nodes:
                for each in {*node.ctrl_deps, *node.data_deps}:
                    of[each].append(node.id)
            self.followers.append(of)
        self.ready = [sorted(number for number, count in each.items() if not count) for each in self.missing]
        self.busy: list[set[str]] = [set() for _ in per_rank]
        self.arrived: Counter[tuple[int, ...]] = Counter()
        self.posted: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
        self.gathering: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        self.counted: Counter[tuple[int, str]] = Counter()
        self.events: list[tuple[int, int, int, int]] = []
        self.ended_ns: dict[tuple[int, int], int] = {}
        self.now = 0

    def run(self) -> int:
        for rank in range(len(self.nodes)):
            self._start(rank)
        while self.events:
            self.now, _, rank, number = heapq.heappop(self.events)
            self._end(rank, number)
        return self.now

    def _start(self, rank: int) -> None:
        for number in list(self.ready[rank]):
            node = self.nodes[rank][number]
            unit = "communication" if node.type in (SEND, RECV, COLL) else "computation"
            if unit in self.busy[rank]:
                continue
            self.busy[rank].add(unit)
            self.ready[rank].remove(number)
            self._issue(rank, number, node, self.values[rank][number])

    def _issue(self, rank: int, number: int, node: Any, values: dict[str, Any]) -> None:
        if node.type == RECV:
            name = (values["comm_src"], rank, values["comm_tag"], values["comm_size"])
            self.posted[name].append((rank, number))
            self._deliver(name)
        elif node.type == COLL:
            group = values["pg_name"]
            name = (group, self.counted[rank, group])
            self.counted[rank, group] += 1
            self.gathering[name].append((rank, number))
            if len(self.gathering[name]) == len(self.groups[group]):
                for each in self.gathering[name]:
                    self._later(*each, values["duration_ns"])
        else:
            assert node.type != SEND or values["comm_src"] == rank, "a send is issued by the sender"
            self._later(rank, number, values["duration_ns"])

    def _later(self, rank: int, number: int, after_ns: int) -> None:
        heapq.heappush(self.events, (self.now + max(after_ns, 1), len(self.events), rank, number))

    def _deliver(self, name: tuple[int, ...]) -> None:
        if self.arrived[name] and self.posted[name]:
            self.arrived[name] -= 1
            self._later(*self.posted[name].pop(0), 0)

    def _end(self, rank: int, number: int) -> None:
        node, values = self.nodes[rank][number], self.values[rank][number]
        self.ended_ns[rank, number] = self.now
        self.busy[rank].discard("communication" if node.type in (SEND, RECV, COLL) else "computation")
        if node.type == SEND:
            name = (rank, values["comm_dst"], values["comm_tag"], values["comm_size"])
            self.arrived[name] += 1
            self._deliver(name)
        for each in self.followers[rank][number]:
            self.missing[rank][each] -= 1
            if not self.missing[rank][each]:
                self.ready[rank] = sorted([*self.ready[rank], each])
        self._start(rank)

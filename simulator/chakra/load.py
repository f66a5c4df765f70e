"""Chakra execution traces as a Program with the durations that they give.

    COLL             the n-th of its kind in its process group, on every member
    SEND and RECV    the n-th from a rank to another with a tag, on both; those of one tag that together make a
                     permutation (a ring's hop) are one exchange, others single transfers
    all others       an operation of one rank on the compute lane, for as long as it says

Nodes say what they wait for and know no lanes. Computation of a rank runs in one lane, in an order that its
dependencies allow (of those that could be next, the lowest id, and communication first); every group, every pattern of
exchange, and every pair of sender and receiver has a lane of its own.
"""

from __future__ import annotations

import heapq
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.program.operations import COMPUTE, Buffer, Collective, Elementwise, Exchange, Operation, Work
from simulator.program.program import Program
from simulator.program.rings import Matching
from simulator.program.setup import Ranks
from simulator.traced.merge import Merge
from simulator.traced.program import TracedProgram
from simulator.traced.timing import StepTimes
from traces.chakra.files import attributes, find_rank_files, read_nodes
from traces.chakra.schema import COLL, COLLECTIVES, RECV, SEND
from traces.errors import InputError
from traces.garbage import collector_paused

IntArray = NDArray[np.int64]
Key = tuple[Any, ...]
COLLECTIVE_KINDS = ("all_reduce", "reduce", "all_gather", "gather", "scatter", "broadcast", "all_to_all",
                    "reduce_scatter", "reduce_scatter", "barrier")  # fmt: skip
MAX_NODES = 20_000_000
MAX_NUMBER = 10**15
"""Of nanoseconds and bytes."""


class ChakraNode(NamedTuple):
    """What is used of a node.

    Attributes
    ----------
    key : what it is part of: the same on all its ranks.
    peer : of a SEND its receiver, of a RECV its sender; else -1.
    """

    number: int
    type: int
    kind: str
    duration_ns: int
    bytes: int
    key: Key
    peer: int
    waits: tuple[int, ...]


@collector_paused()
def load_chakra(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> TracedProgram:
    """Read a folder of ``NAME.RANK.et``, or the files named in order of their ranks.

    Raises
    ------
    InputError
        Where a file cannot be read, a dependency or a partner is missing, or nodes wait for each other in a circle.
    """
    named = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    paths = find_rank_files(named[0]) if len(named) == 1 and Path(named[0]).is_dir() else [Path(each) for each in named]
    per_rank = [_ordered(_read(path, rank), path) for rank, path in enumerate(paths)]
    _check_partners(per_rank)
    return _Builder(per_rank).build()


def _read(path: Path, rank: int) -> list[ChakraNode]:
    nodes, seen = [], Counter[Key]()
    for node in read_nodes(path):
        try:
            nodes.append(_parse(node, rank, seen))
        except KeyError as error:
            what = f"node {node.id} of {path} lacks an attribute"
            raise InputError(what, expected=str(error.args[0])) from error
        except (TypeError, ValueError) as error:
            raise InputError(f"node {node.id} of {path} is malformed", got=error) from error
        if len(nodes) > MAX_NODES:
            raise InputError(f"Chakra trace {path} has too many nodes", expected=f"at most {MAX_NODES}")
    return nodes


def _parse(node: Any, rank: int, seen: Counter[Key]) -> ChakraNode:
    """What is used of a node; ``seen`` counts what it is part of."""
    values = attributes(node)
    key, peer, kind = _part(node, values, rank)
    if key:
        key = (*key, seen[key])
        seen[key[:-1]] += 1
    duration_ns, size = int(values.get("duration_ns", node.duration_micros * 1000)), int(values.get("comm_size", 0))
    if not (0 <= duration_ns <= MAX_NUMBER and 0 <= size <= MAX_NUMBER):
        raise ValueError(f"duration of {duration_ns} ns, {size} bytes")
    waits = tuple(dict.fromkeys((*node.data_deps, *node.ctrl_deps)))
    return ChakraNode(node.id, node.type, kind, duration_ns, size, key, peer, waits)


def _part(node: Any, values: dict[str, Any], rank: int) -> tuple[Key, int, str]:
    """What a node is part of, before it is counted; its partner; its kind."""
    if node.type == COLL:
        number = int(values["comm_type"])
        if not 0 <= number < len(COLLECTIVES):
            raise ValueError(f"comm_type {number}, not 0 to {len(COLLECTIVES) - 1}")
        return ("collective", str(values.get("pg_name", "0")) or "0", number), -1, COLLECTIVE_KINDS[number]
    if node.type == SEND:
        to = int(values["comm_dst"])
        return ("message", rank, to, int(values["comm_tag"])), to, "exchange"
    if node.type == RECV:
        source = int(values["comm_src"])
        return ("message", source, rank, int(values["comm_tag"])), source, "exchange"
    return (), -1, str(values.get("kind", "other"))


def _ordered(nodes: list[ChakraNode], path: Path) -> list[ChakraNode]:
    """In an order that dependencies allow: communication first, then by id."""
    of = {node.number: node for node in nodes}
    if len(of) < len(nodes):
        twice = next(number for number, count in Counter(node.number for node in nodes).items() if count > 1)
        raise InputError(f"Chakra trace {path}: ids are not unique", got=twice)
    waiting, followers = {}, defaultdict(list)
    for node in nodes:
        waiting[node.number] = len(node.waits)
        for each in node.waits:
            if each not in of:
                raise InputError(f"Chakra trace {path}: node {node.number} waits for one that is not there", got=each)
            followers[each].append(node.number)
    ready = [_urgency(node) for node in nodes if not node.waits]
    heapq.heapify(ready)
    ordered = []
    while ready:
        *_, number = heapq.heappop(ready)
        ordered.append(of[number])
        for follower in followers[number]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, _urgency(of[follower]))
    if len(ordered) < len(nodes):
        stuck = f"{len(nodes) - len(ordered)} of {len(nodes)}"
        raise InputError(f"Chakra trace {path}: nodes wait for each other in a circle", got=stuck)
    return ordered


def _urgency(node: ChakraNode) -> tuple[bool, int, int]:
    return not node.key, node.number, node.number


def _check_partners(per_rank: Sequence[Sequence[ChakraNode]]) -> None:
    """Every send has its receive, of the same size."""
    sizes: dict[Key, dict[int, int]] = defaultdict(dict)
    for nodes in per_rank:
        for node in nodes:
            if node.peer >= 0:
                sizes[node.key][node.type] = node.bytes
    for key, of in sizes.items():
        _, source, target, tag, count = key
        if len(of) < 2:
            lacks = "receive" if SEND in of else "send"
            raise InputError(f"message {count} of tag {tag} from rank {source} to rank {target} has no {lacks}")
        if of[SEND] != of[RECV]:
            raise InputError(
                f"message {count} of tag {tag} from rank {source} to rank {target} differs in size",
                got=f"{of[SEND]} bytes sent, {of[RECV]} received",
            )


@dataclass
class _Part:
    """Nodes that are one operation on one rank: one, or a SEND and a RECV of an exchange."""

    nodes: list[ChakraNode]
    number: int


class _Builder:
    """Makes operations."""

    def __init__(self, per_rank: Sequence[Sequence[ChakraNode]]) -> None:
        self._n = len(per_rank)
        self._numbers: dict[Key, int] = {}
        self._exchanges = _find_exchanges(per_rank)
        self._parts = [self._group(rank, nodes) for rank, nodes in enumerate(per_rank)]
        self._program = Program(Ranks(self._n, self._n))
        self._times: list[StepTimes] = []
        self._patterns: dict[bytes, int] = {}
        self._token: dict[tuple[int, int], Buffer | None] = {}

    def build(self) -> TracedProgram:
        """The Program."""
        merge = Merge(self._parts, lambda part: part.number, lambda _: True, lambda part: part.nodes[0].number)
        for _, parts in merge.steps():
            self._emit(parts)
        return TracedProgram(self._program, self._times, 0, 0, on_device=True)

    def _group(self, rank: int, nodes: Sequence[ChakraNode]) -> list[_Part]:
        """Nodes as parts: a SEND and a RECV of one exchange together, where the later of the two stands."""
        parts: list[_Part] = []
        open_parts: dict[Key, _Part] = {}
        last_place = {self._name(node, rank): i for i, node in enumerate(nodes)}
        for i, node in enumerate(nodes):
            name = self._name(node, rank)
            part = open_parts.setdefault(name, _Part([], self._numbers.setdefault(name, len(self._numbers))))
            part.nodes.append(node)
            if last_place[name] == i:
                parts.append(part)
        return parts

    def _name(self, node: ChakraNode, rank: int) -> Key:
        if not node.key:
            return ("local", rank, node.number)
        return self._exchanges.get(node.key, node.key)

    def _emit(self, parts: dict[int, _Part]) -> None:
        number, first = len(self._times), next(iter(parts.values())).nodes[0]
        work_ns = np.zeros(self._n, dtype=np.int64)
        for rank, part in parts.items():
            work_ns[rank] = max(node.duration_ns for node in part.nodes)
        reads = self._reads(parts)
        lane, work = self._work(first, parts)
        writes: tuple[Buffer, ...] = ()
        if lane != COMPUTE:
            writes = (Buffer(number, f"done {number}", 1, 0, 1, 1, "fp32", 0),)
            self._program.allocate(writes[0])
        for rank, part in parts.items():
            for node in part.nodes:
                self._token[rank, node.number] = writes[0] if writes else None
        mask = None
        if len(parts) < self._n:
            mask = np.zeros(self._n, dtype=bool)
            mask[list(parts)] = True
        zero = np.zeros(self._n, dtype=np.int64)
        self._times.append(StepTimes(zero, zero, work_ns))
        kind = "exchange" if isinstance(work, Exchange) else first.kind
        self._program.operation(Operation(number, kind, lane, "forward", 0, reads, writes, work, mask))

    def _reads(self, parts: dict[int, _Part]) -> tuple[Buffer, ...]:
        tokens = (self._token[rank, each] for rank, part in parts.items() for node in part.nodes for each in node.waits)
        return tuple({token.id: token for token in tokens if token is not None}.values())

    def _work(self, first: ChakraNode, parts: dict[int, _Part]) -> tuple[str, Work]:
        sent, to = np.zeros(self._n, dtype=np.int64), np.arange(self._n)
        if not first.key:
            return COMPUTE, Elementwise("measured", 0, 0)
        if first.key[0] == "collective":
            groups = np.where(np.isin(np.arange(self._n), list(parts)), 0, 1 + np.arange(self._n))
            sent[list(parts)] = first.bytes
            groups = np.unique(groups, return_inverse=True)[1]
            return f"comm:group {first.key[1]}", Collective(first.kind, sent, sent, groups)
        for rank, part in parts.items():
            for node in part.nodes:
                if node.type == SEND:
                    sent[rank], to[rank] = node.bytes, node.peer
        lane = f"comm:{first.key[1]} to {first.key[2]}"
        if first.key in self._exchanges:
            lane = f"comm:exchange {self._patterns.setdefault(to.tobytes(), len(self._patterns))}"
        return lane, Exchange(Matching(lane.removeprefix("comm:"), to), sent)


def _find_exchanges(per_rank: Sequence[Sequence[ChakraNode]]) -> dict[Key, Key]:
    """Messages that are one exchange, by their keys: the n-th sends of a tag, to as many ranks as send."""
    candidates: dict[tuple[int, int], list[Key]] = defaultdict(list)
    for nodes in per_rank:
        sent: Counter[int] = Counter()
        for node in nodes:
            if node.type == SEND:
                tag = node.key[3]
                candidates[tag, sent[tag]].append(node.key)
                sent[tag] += 1
    found: dict[Key, Key] = {}
    for name, keys in candidates.items():
        senders, receivers = ([key[i] for key in keys] for i in (1, 2))
        if len(keys) > 1 and len(set(receivers)) == len(receivers) and set(senders) == set(receivers):
            found.update(dict.fromkeys(keys, ("exchange", *name)))
    return found

"""Group-cast: each rank receives the key rows that its queries need and it has not, and nothing else.

What rank r lacks is (keys its queries see) less (its own), in the order of the sequence, cut into n stages of equal
size. Of a stage, each owner sends its rows to each rank that needs them, as one all-to-all of uneven rows: gathered
by receiver before, put in the order of the sequence after. Group-reduce is the way back, with sums where the rows
belong.

Between nodes a row that several ranks of a node need can be sent once: to the rank there that stands where the owner
stands in its node (the relay), which deals it out. Then a stage is two all-to-alls, owner to relay and relay to those
that need it; rows that stay in a node go through their owner as its own relay. On the way back relays add up what their
node has for a row. Communication that does so finds and adds rows itself (``fused``), without kernels beside it.
Source: MagiAttention (github SandAI-org/MagiAttention, docs/source/blog/magi_attn.md: group
collectives on all-to-all-v, and native ones, which send between nodes once).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cost_models.masks import Mask, TokenRange, join_ranges, needed_keys
from simulator.program.operations import IntArray
from simulator.program.partition import Layout, Partition
from simulator.program.recorder import Recorder
from simulator.program.tape import Tensor

Piece = tuple[int, int, int]
"""First token, end, and the rank that holds them."""


@dataclass(frozen=True, eq=False)
class Cast:
    """One all-to-all: rows as they are sent, received, and used; ``splits[r, s]`` of them go from r to s."""

    sent: Layout
    received: Layout
    used: Layout
    splits: IntArray


Stage = tuple[Cast, ...]
"""To whom rows are needed: directly, or to relays and from them."""


@lru_cache(maxsize=32)
def plan_casts(
    partition: Partition, mask: Mask, seq_len: int, stages: int, ranks_per_node: int | None = None
) -> tuple[Stage, ...]:
    """The stages that bring every part's queries their keys; those in which nothing moves are left out.

    Parameters
    ----------
    ranks_per_node : send between nodes once, through relays; None sends to each that needs a row.
    """
    owners = _owners(partition)
    lacking = [_lacking(partition, owners, rank, mask, seq_len) for rank in range(partition.parts)]
    staged = [_in_stages(pieces, stages) for pieces in lacking]
    needed = [[each[stage] for each in staged] for stage in range(stages)]
    needed = [each for each in needed if any(each)]
    if ranks_per_node is None:
        return tuple([(_build(each),) for each in needed])
    return tuple([_build_relayed(each, ranks_per_node) for each in needed])


def _build_relayed(lacking: list[list[Piece]], ranks_per_node: int) -> Stage:
    """Owner to relay, and relay to those that need it."""
    relayed: list[list[Piece]] = [[] for _ in lacking]
    dealt: list[list[Piece]] = []
    for to, pieces in enumerate(lacking):
        first = to // ranks_per_node * ranks_per_node
        dealt.append([(start, stop, first + owner % ranks_per_node) for start, stop, owner in pieces])
        for start, stop, owner in pieces:
            relayed[first + owner % ranks_per_node].append((start, stop, owner))
    return _build([_union(pieces) for pieces in relayed]), _build(dealt)


def _union(pieces: list[Piece]) -> list[Piece]:
    """Each row once, in the order of the sequence; a row has one owner."""
    joined: list[Piece] = []
    for start, stop, owner in sorted(pieces):
        if joined and joined[-1][2] == owner and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1]), owner
        else:
            joined.append((start, stop, owner))
    return joined


def _owners(partition: Partition) -> tuple[IntArray, IntArray, IntArray]:
    """Start, end and owner of every range, in the order of the sequence."""
    start, stop = partition.start.ravel(), partition.stop.ravel()
    owner = np.repeat(np.arange(partition.parts), partition.start.shape[1])
    order = np.argsort(start, kind="stable")
    order = order[stop[order] > start[order]]
    return start[order], stop[order], owner[order]


def _lacking(
    partition: Partition, owners: tuple[IntArray, IntArray, IntArray], rank: int, mask: Mask, seq_len: int
) -> list[Piece]:
    """What a rank needs of others, in the order of the sequence."""
    start, stop, owner = owners
    queries = [each for each in partition.ranges(rank) if each.start < seq_len]
    pieces: list[Piece] = []
    for needed in needed_keys(mask, queries, seq_len):
        first, last = np.searchsorted(stop, needed.start, side="right"), np.searchsorted(start, needed.stop)
        meets = zip(start[first:last].tolist(), stop[first:last].tolist(), owner[first:last].tolist(), strict=True)
        pieces += [(max(a, needed.start), min(b, needed.stop), of) for a, b, of in meets if of != rank]
    return pieces


def _in_stages(pieces: list[Piece], stages: int) -> list[list[Piece]]:
    """Cut into runs of as equal a number of rows as can be."""
    rows = sum(stop - start for start, stop, _ in pieces)
    edges = [rows * stage // stages for stage in range(1, stages + 1)]
    staged: list[list[Piece]] = [[] for _ in edges]
    seen, stage = 0, 0
    for first, stop, owner in pieces:
        start = first
        while start < stop:
            while seen >= edges[stage]:
                stage += 1
            taken = min(stop - start, edges[stage] - seen)
            staged[stage].append((start, start + taken, owner))
            start, seen = start + taken, seen + taken
    return staged


def _build(lacking: list[list[Piece]]) -> Cast:
    ranks = len(lacking)
    splits = np.zeros((ranks, ranks), dtype=np.int64)
    sent: list[list[TokenRange]] = [[] for _ in lacking]
    received: list[list[TokenRange]] = []
    for to, pieces in enumerate(lacking):
        by_owner = sorted(pieces, key=lambda piece: piece[2])  # stable: in the order of the sequence within an owner
        received.append([TokenRange(start, stop) for start, stop, _ in by_owner])
        for start, stop, owner in by_owner:
            sent[owner].append(TokenRange(start, stop))
            splits[owner, to] += stop - start
    used = [join_ranges([TokenRange(a, b) for a, b, _ in pieces]) for pieces in lacking]
    return Cast(_home("sent", sent), _home("received", received), _home("used", used), splits)


def _home(name: str, parts: list[list[TokenRange]]) -> Layout:
    return Layout.home(Partition.of(name, parts))


def start_cast(r: Recorder, cast: Cast, tensors: tuple[Tensor, ...], *, fused: bool = False) -> list[Tensor]:
    """Rows on their way to those that need them."""
    send, receive = [[r.like(each, each.buffer.name, layout=layout) for each in tensors] for layout in
                     (cast.sent, cast.received)]  # fmt: skip
    for tensor, packed in zip(tensors, send, strict=True):
        r.reorder(tensor, tensor.layout, packed, fused=fused)
    r.all_to_all_v(send, receive, cast.splits)
    return receive


def arrange(r: Recorder, cast: Cast, received: list[Tensor], *, fused: bool = False) -> list[Tensor]:
    """What has arrived, in the order of the sequence."""
    used = [r.like(each, each.buffer.name, layout=cast.used) for each in received]
    pairs = zip(received, used, strict=True)
    return [r.reorder(each, cast.received, target, fused=fused) for each, target in pairs]


def start_reduce(r: Recorder, cast: Cast, parts: tuple[Tensor, ...], *, fused: bool = False) -> list[Tensor]:
    """Gradients of rows that were cast, on their way back to those that sent them."""
    receive = [r.like(each, each.buffer.name, layout=cast.sent) for each in parts]
    send = [
        each if each.layout is cast.received
        else r.reorder(each, each.layout, r.like(each, each.buffer.name, layout=cast.received), fused=fused)
        for each in parts
    ]  # fmt: skip
    r.all_to_all_v(send, receive, cast.splits.T)
    return receive


def add_at_relays(r: Recorder, cast: Cast, parts: list[Tensor]) -> tuple[Tensor, ...]:
    """Sums of what a node has for each row, where the row had arrived in the node."""
    return r.sum_by_token(parts, cast.received)

"""Group-cast: each rank receives the key rows that its queries need and it has not, and nothing else.

What rank r lacks is (keys its queries see) less (its own), in the order of the sequence, cut into n stages of equal
size. Of a stage, each owner sends its rows to each rank that needs them, as one all-to-all of uneven rows: gathered
by receiver before, put in the order of the sequence after. Group-reduce is the way back, with sums where the rows
belong. Source: MagiAttention (github SandAI-org/MagiAttention, docs/source/blog/magi_attn.md: group collectives on
all-to-all-v).
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
    """One stage: rows in the order in which they are sent, received, and used; ``splits[r, s]`` rows go from r to s."""

    sent: Layout
    received: Layout
    used: Layout
    splits: IntArray


@lru_cache(maxsize=32)
def plan_casts(partition: Partition, mask: Mask, seq_len: int, stages: int) -> tuple[Cast, ...]:
    """The stages that bring every part's queries their keys; those in which nothing moves are left out."""
    owners = _owners(partition)
    lacking = [_lacking(partition, owners, rank, mask, seq_len) for rank in range(partition.parts)]
    staged = [_in_stages(pieces, stages) for pieces in lacking]
    casts = [_build([each[stage] for each in staged]) for stage in range(stages)]
    return tuple([cast for cast in casts if cast.splits.any()])


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


def start_cast(r: Recorder, cast: Cast, tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """Rows on their way to those that need them."""
    send, receive = [[r.like(each, each.buffer.name, layout=layout) for each in tensors] for layout in
                     (cast.sent, cast.received)]  # fmt: skip
    for tensor, packed in zip(tensors, send, strict=True):
        r.reorder(tensor, tensor.layout, packed)
    r.all_to_all_v(send, receive, cast.splits)
    return receive


def arrange(r: Recorder, cast: Cast, received: list[Tensor]) -> list[Tensor]:
    """What has arrived, in the order of the sequence."""
    return [r.reorder(each, cast.received, r.like(each, each.buffer.name, layout=cast.used)) for each in received]


def start_reduce(r: Recorder, cast: Cast, parts: tuple[Tensor, ...]) -> list[Tensor]:
    """Gradients of rows that were cast, on their way to their owners."""
    send, receive = [[r.like(each, each.buffer.name, layout=layout) for each in parts] for layout in
                     (cast.received, cast.sent)]  # fmt: skip
    for tensor, packed in zip(parts, send, strict=True):
        r.reorder(tensor, cast.used, packed)
    r.all_to_all_v(send, receive, cast.splits.T)
    return receive

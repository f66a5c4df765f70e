"""Which tokens each rank's copy of a buffer holds.

A *partition* splits a sequence of S tokens over P ranks; rank r's part is a short list of ranges with one stride. A
*layout* is a partition and, for each rank, whose part it holds now: a hop permutes the owners and nothing else. What a
step computes follows from the two layouts and the mask, so no schedule writes it down.

    contiguous  rank r holds [r c, (r+1) c),  c = S/P
    zigzag      rank r holds chunks r and 2P-1-r of 2P  (equal causal work on every rank; RingAttention users, 2023)
    striped     rank r holds r, r+P, r+2P, ...          (Striped Attention, arXiv 2311.09431)
    whole       every rank holds all S tokens           (head-parallel phases)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cost_models.masks import TokenRange
from simulator.program.rings import Ring
from traces.errors import InputError

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Partition:
    """Token ranges of each part: columns of shape [parts, ranges per part].

    Attributes
    ----------
    start, stop : first token and end of each range; an empty range has ``stop <= start``.
    stride : distance between neighbouring tokens of a range.
    """

    name: str
    start: IntArray
    stop: IntArray
    stride: int = 1

    @cached_property
    def tokens(self) -> IntArray:
        """Tokens of each part."""
        length = np.maximum(self.stop - self.start + self.stride - 1, 0) // self.stride
        return np.asarray(length.sum(axis=1))

    @cached_property
    def uniform_tokens(self) -> int | None:
        """Tokens of every part; None where they differ."""
        first = int(self.tokens[0])
        return first if bool((self.tokens == first).all()) else None

    @property
    def parts(self) -> int:
        """Number of parts (ranks)."""
        return len(self.start)

    def ranges(self, part: int) -> tuple[TokenRange, ...]:
        """The token ranges of one part, in the order in which they lie in memory."""
        return tuple(
            TokenRange(int(a), int(b), self.stride)
            for a, b in zip(self.start[part], self.stop[part], strict=True)
            if b > a
        )


class Layout:
    """A partition and whose part each rank holds.

    Attributes
    ----------
    shift : where rank r of P holds part (r + shift) mod P: that number; None where the parts lie otherwise.

    >>> zigzag = Layout.home(build_partition("zigzag", 16, 2))
    >>> [str(each) for each in zigzag.moved(Ring("ring", 1, 2, 2)).ranges(0)]
    ['[4, 8)', '[8, 12)']
    """

    __slots__ = ("_owner", "partition", "shift")

    def __init__(self, partition: Partition, owner: IntArray | None, shift: int | None = None) -> None:
        self.partition, self._owner, self.shift = partition, owner, shift

    @staticmethod
    def home(partition: Partition) -> Layout:
        """Each rank holds its own part."""
        return Layout(partition, None, 0)

    @property
    def owner(self) -> IntArray:
        """The part that each rank holds."""
        if self._owner is not None:
            return self._owner
        assert self.shift is not None
        return (np.arange(self.partition.parts) + self.shift) % self.partition.parts

    def moved(self, ring: Ring) -> Layout:
        """The layout after every rank received what its predecessor in the ring held."""
        if self.shift is not None and ring.size == self.partition.parts:
            return Layout(self.partition, None, (self.shift - 1) % ring.size)
        return Layout(self.partition, self.owner[ring.source])

    def ranges(self, rank: int) -> tuple[TokenRange, ...]:
        """Token ranges held by one rank."""
        return self.partition.ranges(int(self.owner[rank]))

    @property
    def tokens(self) -> int | IntArray:
        """Tokens held by each rank; one number where all hold as many."""
        uniform = self.partition.uniform_tokens
        return self.partition.tokens[self.owner] if uniform is None else uniform


def build_partition(name: str, seq_len: int, parts: int) -> Partition:
    """Split ``seq_len`` tokens over ``parts`` ranks.

    Raises
    ------
    InputError
        For an unknown name, or where the chunks do not divide the sequence.

    >>> build_partition("striped", 6, 3).ranges(1)
    (TokenRange(start=1, stop=6, stride=3),)
    """
    try:
        builder, chunks_per_part = _BUILDERS[name]
    except KeyError:
        raise InputError("unknown partition", got=name, expected="one of " + ", ".join(_BUILDERS)) from None
    chunks = chunks_per_part * parts
    if chunks and seq_len % chunks:
        factor = "" if chunks_per_part == 1 else f"{chunks_per_part} x "
        raise InputError(
            f"seq_len {seq_len} is not divisible by {factor}{parts} {name} chunks", remedy=f"use a multiple of {chunks}"
        )
    return builder(seq_len, parts)


def _contiguous(seq_len: int, parts: int) -> Partition:
    edge = np.arange(parts + 1) * (seq_len // parts)
    return Partition("contiguous", edge[:-1, None], edge[1:, None])


def _zigzag(seq_len: int, parts: int) -> Partition:
    chunk, part = seq_len // (2 * parts), np.arange(parts)
    start = np.stack([part, 2 * parts - 1 - part], axis=1) * chunk
    return Partition("zigzag", start, start + chunk)


def _striped(seq_len: int, parts: int) -> Partition:
    start = np.arange(parts)[:, None]
    return Partition("striped", start, np.full_like(start, seq_len), stride=parts)


def _whole(seq_len: int, parts: int) -> Partition:
    zero = np.zeros((parts, 1), dtype=np.int64)
    return Partition("whole", zero, zero + seq_len)


_BUILDERS = {"contiguous": (_contiguous, 1), "zigzag": (_zigzag, 2), "striped": (_striped, 1), "whole": (_whole, 0)}

"""Which tokens each rank's copy of a buffer holds.

A *partition* splits a sequence of S tokens into parts; a part is a short list of ranges with one stride. A *layout*
says whose part each rank holds now, and from which head on, where it holds some heads only: a hop permutes the owners
and nothing else. What a step computes follows from the two layouts and the mask, so no schedule writes it down.

Parts may be padded: tokens of S and above are padding, of which every rank has its own. No mask allows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from cost_models.masks import TokenRange, gather_tokens, join_ranges
from simulator.program.rings import Matching, Ring

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Partition:
    """Token ranges of each part: columns of shape [parts, ranges per part].

    Attributes
    ----------
    start, stop : first token and end of each range; an empty range has ``stop <= start``.
    stride : distance between neighbouring tokens of a range.
    extends : the partition of which this has all parts, and one without tokens after them.
    """

    name: str
    start: IntArray
    stop: IntArray
    stride: int = 1
    extends: Partition | None = None

    @staticmethod
    def of(name: str, parts: Sequence[Iterable[TokenRange]]) -> Partition:
        """A partition from the ranges of each part, all of one stride."""
        lists = [[each for each in part if len(each)] for part in parts]
        strides = {each.stride for part in lists for each in part}
        assert len(strides) <= 1, "ranges of one stride"
        width = max(1, *map(len, lists)) if lists else 1
        start, stop = np.zeros((len(lists), width), dtype=np.int64), np.zeros((len(lists), width), dtype=np.int64)
        for row, part in enumerate(lists):
            start[row, : len(part)], stop[row, : len(part)] = [r.start for r in part], [r.stop for r in part]
        return Partition(name, start, stop, strides.pop() if strides else 1)

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
        """Number of parts."""
        return len(self.start)

    def ranges(self, part: int) -> tuple[TokenRange, ...]:
        """The token ranges of one part, in the order in which they lie in memory."""
        return tuple(
            TokenRange(int(a), int(b), self.stride)
            for a, b in zip(self.start[part].tolist(), self.stop[part].tolist(), strict=True)
            if b > a
        )

    @cached_property
    def or_nothing(self) -> Partition:
        """The same parts, and one more without tokens."""
        none = np.zeros((1, self.start.shape[1]), dtype=np.int64)
        start, stop = np.concatenate([self.start, none]), np.concatenate([self.stop, none])
        return Partition(self.name, start, stop, self.stride, self)


class Layout:
    """Whose part each rank holds.

    Attributes
    ----------
    shift : where rank r of P holds part (r + shift) mod P: that number; None where the parts lie otherwise.
    first_head : the first of the heads that each rank holds; None where it holds all.

    >>> from simulator.program.partitioners import build_partition
    >>> zigzag = Layout.home(build_partition("zigzag", 16, 2))
    >>> [str(each) for each in zigzag.moved(Ring("ring", 1, 2, 2)).ranges(0)]
    ['[4, 8)', '[8, 12)']
    """

    __slots__ = ("_owner", "first_head", "partition", "shift")

    def __init__(
        self, partition: Partition, owner: IntArray | None, shift: int | None = None, first_head: IntArray | None = None
    ) -> None:
        self.partition, self._owner, self.shift, self.first_head = partition, owner, shift, first_head

    @staticmethod
    def home(partition: Partition) -> Layout:
        """Each rank holds its own part."""
        return Layout(partition, None, 0)

    @staticmethod
    def whole(seq_len: int, n_ranks: int, first_head: IntArray | None = None) -> Layout:
        """Every rank holds all tokens."""
        return Layout(_whole(seq_len), np.zeros(n_ranks, dtype=np.int64), None, first_head)

    @property
    def owner(self) -> IntArray:
        """The part that each rank holds."""
        if self._owner is not None:
            return self._owner
        assert self.shift is not None
        return (np.arange(self.partition.parts) + self.shift) % self.partition.parts

    def moved(self, ring: Ring | Matching) -> Layout:
        """The layout after every rank received what its predecessor in the ring held."""
        if self.shift is not None and isinstance(ring, Ring) and ring.size == self.partition.parts:
            return Layout(self.partition, None, (self.shift - 1) % ring.size)
        first_head = None if self.first_head is None else self.first_head[ring.source]
        return Layout(self.partition, self.owner[ring.source], None, first_head)

    def only(self, ranks: NDArray[np.bool_]) -> Layout:
        """The same on some ranks, nothing on the others."""
        partition = self.partition if self.partition.extends is not None else self.partition.or_nothing
        return Layout(partition, np.where(ranks, self.owner, partition.parts - 1), None, self.first_head)

    def gathered(self, group: Ring) -> Layout:
        """Every rank holds what its group holds, in order of position."""
        assert self.shift == 0, "gathered from home"
        return Layout(_gathered(self.partition, group.step, group.size, group.n_ranks), group.groups)

    def ranges(self, rank: int) -> tuple[TokenRange, ...]:
        """Token ranges held by one rank."""
        return self.partition.ranges(int(self.owner[rank]))

    def tokens_of(self, rank: int) -> IntArray:
        """Tokens held by one rank, in the order of its rows."""
        return gather_tokens(self.ranges(rank))

    @property
    def tokens(self) -> int | IntArray:
        """Tokens held by each rank; one number where all hold as many."""
        uniform = self.partition.uniform_tokens
        return self.partition.tokens[self.owner] if uniform is None else uniform


@lru_cache(maxsize=256)
def _whole(seq_len: int) -> Partition:
    return Partition("whole", np.zeros((1, 1), dtype=np.int64), np.full((1, 1), seq_len))


@lru_cache(maxsize=64)
def _gathered(partition: Partition, step: int, size: int, n_ranks: int) -> Partition:
    members = Ring("gathered", step, size, n_ranks).members
    start, stop = partition.start[members], partition.stop[members]
    return Partition("gathered", start.reshape(len(members), -1), stop.reshape(len(members), -1), partition.stride)


def same_order(a: Layout, b: Layout) -> bool:
    """Whether every rank holds the same tokens in the same rows in both layouts.

    >>> home = Layout.home(Partition.of("halves", [[TokenRange(0, 4)], [TokenRange(4, 8)]]))
    >>> same_order(home.gathered(Ring("all", 1, 2, 2)), Layout.whole(8, 2))
    True
    """
    pairs = set(zip(a.owner.tolist(), b.owner.tolist(), strict=True))
    return all(_runs(a.partition.ranges(p)) == _runs(b.partition.ranges(q)) for p, q in pairs)


def _runs(ranges: Iterable[TokenRange]) -> list[tuple[int, int, int]]:
    return [(each.start, len(each), each.stride) for each in join_ranges(ranges)]


def rows_of(source: IntArray, target: IntArray) -> IntArray:
    """For each token of ``target``, its row in ``source``; -1 where it has none.

    >>> rows_of(np.array([4, 5, 0, 1]), np.array([0, 1, 2, 5])).tolist()
    [2, 3, -1, 1]
    """
    if not len(source):
        return np.full(len(target), -1, dtype=np.int64)
    order = np.argsort(source, kind="stable")
    place = np.minimum(np.searchsorted(source[order], target), len(source) - 1)
    row = order[place]
    return np.where(source[row] == target, row, -1)

"""Pairs of chunks that leave the same band of a mask, numbered for all ranks at once.

For masks that are one band ``lo <= q - k <= hi`` and partitions of equal chunks. Two chunks of n tokens and stride s
whose starts differ by D = q0 - k0 leave exactly the local band

    ceil((lo - D) / s) <= i - j <= floor((hi - D) / s),      clipped to [-(n-1), n-1],

so their relation depends on D alone, and there are few distinct ones: its *class*. In all partitions here chunk i of
part r starts at a_i r + b_i with a_i = +a or -a, so D is a function of r_q - r_k, or of r_q + r_k. The classes of all
chunk pairs are thus one number, ``minus[r_q - r_k] + plus[r_q + r_k]``: two look-ups for all ranks at once, and in a
flat ring a few runs of ranks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cost_models.masks import Mask
from simulator.program.partition import Partition

IntArray = NDArray[np.int64]

MAX_CODES = 1 << 16
"""Largest look-up table of class numbers; beyond it the dictionary is used."""

Runs = list[tuple[int, int, int]]
"""(start, stop, number): ranks start <= r < stop have that number."""


@dataclass(slots=True)
class ChunkClasses:
    """Classes of the chunk pairs of two parts, as one number (see the module's equations)."""

    minus: IntArray
    plus: IntArray | None
    parts: int
    edges: tuple[list[int], ...] = field(init=False)

    def __post_init__(self) -> None:
        """Where ``plus`` changes, among its even and among its odd places: there are few such."""
        plus = np.zeros(0, dtype=np.int64) if self.plus is None else self.plus
        self.edges = tuple([(np.flatnonzero(np.diff(half)) + 1).tolist() for half in (plus[0::2], plus[1::2])])

    @staticmethod
    def build(mask: Mask, seq_len: int, queries: Partition, keys: Partition) -> ChunkClasses | None:
        """None where the fast path does not apply."""
        blocks = mask.blocks(seq_len) if mask.translation_invariant else ()
        lengths = np.unique(np.concatenate([_lengths(queries).ravel(), _lengths(keys).ravel()]))
        q_slopes, k_slopes = _slopes(queries), _slopes(keys)
        if len(blocks) != 1 or len(lengths) != 1 or queries.stride != keys.stride:
            return None
        if q_slopes is None or k_slopes is None or len(set(map(abs, q_slopes + k_slopes))) != 1:
            return None
        parts, band, length = max(queries.parts, keys.parts), (blocks[0].lo, blocks[0].hi), int(lengths[0])
        minus, plus = np.arange(1 - parts, parts), np.arange(2 * parts - 1)
        starts = []
        for i, q_slope in enumerate(q_slopes):
            for j, k_slope in enumerate(k_slopes):
                apart = queries.start[0, i] - keys.start[0, j]
                starts.append((q_slope == k_slope, apart + q_slope * (minus if q_slope == k_slope else plus)))
        class_of, classes = _classify(*band, [start for _, start in starts], length, queries.stride)
        if classes ** len(starts) > MAX_CODES:
            return None
        codes = [np.zeros_like(minus), np.zeros_like(plus)]
        for place, ((same, _), column) in enumerate(zip(starts, class_of, strict=True)):
            codes[0 if same else 1] += column * classes**place
        crossed = any(not same for same, _ in starts)
        return ChunkClasses(codes[0], codes[1] if crossed else None, parts)

    def codes(self, query_owner: IntArray, key_owner: IntArray) -> IntArray:
        """Class number of each rank."""
        code: IntArray = self.minus.take(query_owner - key_owner + self.parts - 1)
        if self.plus is not None:
            code += self.plus.take(query_owner + key_owner)
        return code

    def runs(self, query_shift: int, key_shift: int) -> Runs:
        """(start, stop, class number) where rank r holds parts (r + shift) mod P."""
        wraps = {0, (-query_shift) % self.parts, (-key_shift) % self.parts}
        edges, runs = [*sorted(wraps), self.parts], []
        for start, stop in pairwise(edges):
            q, k = (start + query_shift) % self.parts, (start + key_shift) % self.parts
            minus = int(self.minus[q - k + self.parts - 1])
            for low, high, plus in self._plus_runs(q + k, stop - start):
                runs.append((start + low, start + high, minus + plus))
        return runs

    def _plus_runs(self, first: int, count: int) -> Runs:
        """Runs of plus[first], plus[first + 2], ..., ``count`` of them."""
        if self.plus is None:
            return [(0, count, 0)]
        place, edges = first // 2, self.edges[first % 2]
        low, high = bisect_right(edges, place), bisect_left(edges, place + count)
        starts = [0, *[edge - place for edge in edges[low:high]], count]
        return [(low, high, int(self.plus[first + 2 * low])) for low, high in pairwise(starts)]


def _lengths(partition: Partition) -> IntArray:
    return np.asarray((partition.stop - partition.start + partition.stride - 1) // partition.stride)


def _slopes(partition: Partition) -> list[int] | None:
    """Distance of a chunk's starts in neighbouring parts, for each chunk; None where one is not constant."""
    if partition.parts == 1:
        return [0] * partition.start.shape[1]
    difference = np.diff(partition.start, axis=0)
    return difference[0].tolist() if bool((difference == difference[0]).all()) else None


def _classify(
    lo: int | None, hi: int | None, differences: list[IntArray], length: int, stride: int
) -> tuple[list[IntArray], int]:
    """Number the distinct local bands of chunk pairs whose starts differ by ``differences``; and how many there are."""
    reach = length - 1
    difference = np.concatenate(differences)
    low = np.full_like(difference, -reach) if lo is None else -((difference - lo) // stride)
    high = np.full_like(difference, reach) if hi is None else (hi - difference) // stride
    band = np.stack([np.clip(low, -reach, reach), np.clip(high, -reach, reach)], axis=1)
    band[(low > reach) | (high < -reach) | (low > high)] = (reach + 1, -reach - 1)
    class_of = np.unique(band, axis=0, return_inverse=True)[1].reshape(-1)
    edges = np.cumsum([len(each) for each in differences])[:-1]
    return np.split(class_of, edges), int(class_of.max()) + 1

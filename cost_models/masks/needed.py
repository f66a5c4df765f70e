"""Which keys some queries see at all: what a group-cast has to bring them.

Queries [a, b) of a block with band lo <= q - k <= hi see the keys a - hi <= k <= b - 1 - lo of its columns: one
interval, because each query's keys are those of the one before moved on by one. The union over blocks and ranges is
exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cost_models.masks.mask import Mask
from cost_models.masks.tokens import TokenRange
from traces.errors import InputError


def needed_keys(mask: Mask, q_ranges: Sequence[TokenRange], seq_len: int) -> list[TokenRange]:
    """Keys that any of the queries sees, in order.

    Raises
    ------
    InputError
        Where the queries are strided: their keys then are no intervals.

    >>> from cost_models.masks.static import SlidingWindow
    >>> [str(each) for each in needed_keys(SlidingWindow(3, causal=True), [TokenRange(8, 10), TokenRange(2, 4)], 16)]
    ['[0, 4)', '[6, 10)']
    """
    if any(each.stride != 1 for each in q_ranges):
        raise InputError("keys needed by strided queries are no intervals", got=str(q_ranges[0]))
    found = []
    for block, i, _ in mask.block_table(seq_len).meetings(q_ranges, [TokenRange(0, seq_len)]):
        first, stop = max(q_ranges[i].start, block.q_start), min(q_ranges[i].stop, block.q_stop)
        lo, hi = block.band
        low, high = max(block.k_start, first - hi), min(block.k_stop, stop - lo)
        if first < stop and low < high:
            found.append((low, high))
    return union(found)


def union(intervals: Iterable[tuple[int, int]]) -> list[TokenRange]:
    """Disjoint ranges in order with the tokens of some half-open intervals.

    >>> [str(each) for each in union([(4, 8), (0, 2), (2, 3), (6, 9)])]
    ['[0, 3)', '[4, 9)']
    """
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(intervals):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        else:
            joined.append((start, stop))
    return [TokenRange(start, stop) for start, stop in joined]

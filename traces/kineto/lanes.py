"""Lanes in which rows never overlap, from queues in which they may."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


class Queues(NamedTuple):
    """Columns of rows: where and when each ran; and the lanes' names."""

    rank: IntArray
    lane: IntArray
    start_ns: IntArray
    end_ns: IntArray
    names: tuple[str, ...]


class Separated(NamedTuple):
    """Lanes and ends of the rows, the lanes' names, and nanoseconds cut in all."""

    lane: IntArray
    end_ns: IntArray
    names: tuple[str, ...]
    cut_ns: int


def separate_lanes(rows: Queues, *, keep: bool) -> Separated:
    """Make lanes exclusive.

    Parameters
    ----------
    keep : cut the earlier of two overlapping rows; else put the later one into another lane, ``name/2`` and so on.
    """
    order = np.lexsort((rows.end_ns, rows.start_ns, rows.lane, rows.rank))
    rank, lane = rows.rank[order], rows.lane[order]
    same = (rank[1:] == rank[:-1]) & (lane[1:] == lane[:-1])
    if not keep:
        return _spread(rows, order)
    cut = rows.end_ns.copy()
    earlier, later = order[:-1][same], order[1:][same]
    cut[earlier] = np.minimum(cut[earlier], rows.start_ns[later])
    return Separated(rows.lane, cut, rows.names, int((rows.end_ns - cut).sum()))


def _spread(rows: Queues, order: NDArray[np.intp]) -> Separated:
    """Each row into the first lane of its queue that is free."""
    numbers = {name: i for i, name in enumerate(rows.names)}
    spread, queue = rows.lane.copy(), (-1, -1)
    busy: list[tuple[int, int]] = []
    free: list[int] = []
    columns = (column[order].tolist() for column in rows[:4])
    for row, rank, lane, start_ns, end_ns in zip(order.tolist(), *columns, strict=True):
        if (rank, lane) != queue:
            queue, busy, free = (rank, lane), [], []
        while busy and busy[0][0] <= start_ns:
            heapq.heappush(free, heapq.heappop(busy)[1])
        place = heapq.heappop(free) if free else len(busy)
        name = rows.names[lane] if place == 0 else f"{rows.names[lane]}/{place + 1}"
        spread[row] = numbers.setdefault(name, len(numbers))
        heapq.heappush(busy, (end_ns, place))
    return Separated(spread, rows.end_ns, tuple(numbers), 0)

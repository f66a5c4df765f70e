"""Fewer bars for the same picture: neighbours of a kind become one bar, as long as they were together.

    cells     the makespan in 2**level equal parts; a row belongs to the cell in which it starts
    merged    rows of one (track, cell, kind) no longer than a cell -> one bar, its length their sum
    placed    one kind after the other, from the first start in the cell on

Rows of a track do not overlap, so neither do the bars, no bar ends after the last row that it stands for, and no row
is drawn further than a cell from its place. Each track keeps its busy time of every kind to the nanosecond. Cells of
a level are halves of the cells of the one before, so the number of bars grows with the level and the finest level
that is allowed is found by bisection; level 0 has one bar per track and kind.

Bars are SVG elements: ten thousand load in three seconds, ten times as many in fifteen.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_LEVEL = 16

IntArray = NDArray[np.int64]


class Bars(NamedTuple):
    """Columns of what is drawn, a bar per entry.

    Attributes
    ----------
    track, kind : indexes.
    start_ns, end_ns : where it is drawn.
    bytes : sent, summed.
    row : the timeline's row that it stands for, the first of several; -1 for what has no row.
    rows : how many it stands for.
    """

    track: IntArray
    kind: IntArray
    start_ns: IntArray
    end_ns: IntArray
    bytes: IntArray
    row: IntArray
    rows: IntArray


class Thinned(NamedTuple):
    """The bars to draw, and how far a row may be from its place."""

    bars: Bars
    cell_ns: float


def thin(bars: Bars, max_bars: int, makespan_ns: int) -> Thinned:
    """Merge bars until there are at most ``max_bars``, or one per track and kind."""
    if len(bars.track) <= max_bars:
        return Thinned(bars, 0.0)
    span_ns = max(makespan_ns, 1)
    level = bisect_right(
        range(1, MAX_LEVEL + 1), max_bars, key=lambda level: _count(_groups(bars, level, span_ns), bars)
    )
    return Thinned(_merged(bars, _groups(bars, level, span_ns)), span_ns / 2**level)


def _groups(bars: Bars, level: int, span_ns: int) -> IntArray:
    """What is placed together: an integer per (track, cell), and one of its own for a row longer than a cell."""
    cells = 1 << level
    cell = np.minimum((bars.start_ns / span_ns * cells).astype(np.int64), cells - 1)
    long = (bars.end_ns - bars.start_ns) / span_ns * cells > 1
    return (bars.track * cells + cell) * 2 + long


def _count(groups: IntArray, bars: Bars) -> int:
    return len(np.unique(groups * (int(bars.kind.max()) + 1) + bars.kind))


def _merged(bars: Bars, groups: IntArray) -> Bars:
    order = np.lexsort((bars.start_ns, bars.kind, groups))
    group, kind = groups[order], bars.kind[order]
    first = np.flatnonzero(np.concatenate(([True], (group[1:] != group[:-1]) | (kind[1:] != kind[:-1]))))
    length, n_bytes, rows = (
        np.add.reduceat(column[order], first) for column in (bars.end_ns - bars.start_ns, bars.bytes, bars.rows)
    )
    lead = order[first]
    placed = np.lexsort((bars.start_ns[lead], groups[lead]))
    lead, length, n_bytes, rows = lead[placed], length[placed], n_bytes[placed], rows[placed]
    start = _placed(groups[lead], bars.start_ns[lead], length)
    return Bars(bars.track[lead], bars.kind[lead], start, start + length, n_bytes, bars.row[lead], rows)


def _placed(group: IntArray, start_ns: IntArray, length_ns: IntArray) -> IntArray:
    """Starts of bars sorted by group and start: each begins where the one before it in its group ends."""
    before = np.cumsum(length_ns) - length_ns
    opens = np.flatnonzero(np.concatenate(([True], group[1:] != group[:-1])))
    size = np.diff(np.append(opens, len(group)))
    return np.asarray(before + np.repeat(start_ns[opens] - before[opens], size))

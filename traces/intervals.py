"""Sets of time as half-open intervals [start, end), in NumPy.

    union:     sort by start, take the running maximum of the ends; a new piece begins where start > that maximum
    A minus B: cut time at every edge; keep the cells [p, next p) with p in A and p not in B

where p is in A if more intervals of A began at or before p than ended at or before p.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


class Intervals(NamedTuple):
    """Starts and ends, in nanoseconds; a result of this module's functions is sorted and disjoint."""

    start: IntArray
    end: IntArray

    @property
    def total_ns(self) -> int:
        """Sum of the lengths, in nanoseconds."""
        return int((self.end - self.start).sum())


def unite(intervals: Intervals) -> Intervals:
    """Sorted, disjoint, non-empty intervals that cover the same time.

    >>> unite(Intervals(np.array([5, 0, 1]), np.array([6, 2, 3])))
    Intervals(start=array([0, 5]), end=array([3, 6]))
    """
    filled = intervals.end > intervals.start
    order = np.argsort(intervals.start[filled], kind="stable")
    start, end = intervals.start[filled][order], intervals.end[filled][order]
    if not len(start):
        return Intervals(start, end)
    reach = np.maximum.accumulate(end)
    begins = np.concatenate(([True], start[1:] > reach[:-1]))
    ends = np.concatenate((begins[1:], [True]))
    return Intervals(start[begins], reach[ends])


def subtract(intervals: Intervals, removed: Intervals) -> Intervals:
    """The time in ``intervals`` that is not in ``removed``.

    >>> subtract(Intervals(np.array([0]), np.array([9])), Intervals(np.array([2]), np.array([4])))
    Intervals(start=array([0, 4]), end=array([2, 9]))
    """
    edges = np.unique(np.concatenate((*intervals, *removed)))
    keep = _covers(intervals, edges) & ~_covers(removed, edges)
    cells = np.flatnonzero(keep)
    return unite(Intervals(edges[cells], edges[cells + 1]))


def intersect(a: Intervals, b: Intervals) -> Intervals:
    """The time that is in both.

    >>> intersect(Intervals(np.array([0]), np.array([9])), Intervals(np.array([2, 8]), np.array([4, 12])))
    Intervals(start=array([2, 8]), end=array([4, 9]))
    """
    return subtract(a, subtract(a, b))


def _covers(intervals: Intervals, points: IntArray) -> NDArray[np.bool_]:
    begun = np.searchsorted(np.sort(intervals.start), points, side="right")
    ended = np.searchsorted(np.sort(intervals.end), points, side="right")
    return np.asarray(begun > ended)

"""Kernel launches in flash-attention's terms, and how cells are packed into few of them.

In a segment of n_q rows and n_k columns, row i sees columns i + (n_k - n_q) - left <= j <= i + (n_k - n_q) + right:
windows are aligned at the bottom right corner; (None, None) is full, (None, 0) causal. With a tight cell's band on
positions inside the segment,

    left = hi + n_k - n_q,    right = n_q - n_k - lo,    both >= 0;

left does not cut if left >= n_k - 1, right if right >= n_q - 1: the cell then fits any launch with a bound at least so
large. A launch may have several segments (varlen) if they share left and right and no row is in two of them; columns
may be, the executor gathers them. Rows in several launches are merged by their log-sum-exp.
Source: flash-attention 2.1+ (`flash_attn_varlen_func`, window_size).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import groupby

from cost_models.masks.cells import Cell


@dataclass(frozen=True, slots=True)
class Segment:
    """Local rows and columns of one attention problem inside a launch."""

    q_start: int
    q_stop: int
    k_start: int
    k_stop: int


@dataclass(frozen=True, slots=True)
class KernelCall:
    """One launch; several segments make it a varlen one.

    Attributes
    ----------
    segments : in order of rows, which are disjoint.
    left, right : window around the bottom-right diagonal; None is unbounded.
    """

    segments: tuple[Segment, ...]
    left: int | None
    right: int | None


def pack_cells(cells: Iterable[Cell]) -> tuple[KernelCall, ...]:
    """Few launches that compute the cells, each once.

    >>> pack_cells([Cell(0, 4, 0, 4, 0, 3, 10), Cell(4, 8, 4, 8, 0, 3, 10)])  # doctest: +ELLIPSIS
    (KernelCall(segments=(Segment(...k_stop=4), Segment(...k_stop=8)), left=None, right=0),)
    """
    launches: list[_Launch] = []
    # The least flexible first: what does not cut can join any launch.
    shapes = sorted(map(_Shape.of, cells), key=lambda shape: (shape.flexibility, shape.order, shape.segment.q_start))
    for window, alike in groupby(shapes, key=lambda shape: (shape.left, shape.right)):
        launches += _fill(list(alike), *window, launches)
    calls = [launch.call() for launch in launches]
    return tuple(sorted(calls, key=lambda call: (call.segments[0].q_start, call.segments[0].k_start)))


def _fill(shapes: list[_Shape], left: int | None, right: int | None, earlier: list[_Launch]) -> list[_Launch]:
    """Shapes of one window, in order of rows, into earlier launches or else into the fewest new ones."""
    new: list[_Launch] = []
    reached: list[tuple[int, int]] = []  # heap of (row that a new launch has reached, its number)
    for shape in shapes:
        launch = next((launch for launch in earlier if launch.takes(shape)), None)
        if launch is None:
            if reached and reached[0][0] <= shape.segment.q_start:
                number = heappop(reached)[1]
            else:
                number = len(new)
                new.append(_Launch(left, right))
            heappush(reached, (shape.segment.q_stop, number))
            launch = new[number]
        launch.add(shape.segment)
    return new


@dataclass(frozen=True, slots=True)
class _Shape:
    """A segment and the window it needs; ``None`` where the window does not cut."""

    segment: Segment
    left: int | None
    right: int | None

    @staticmethod
    def of(cell: Cell) -> _Shape:
        rows, columns = cell.q_stop - cell.q_start, cell.k_stop - cell.k_start
        segment = Segment(cell.q_start, cell.q_stop, cell.k_start, cell.k_stop)
        # From the diagonal through the last row and column: q_stop - k_stop on local positions.
        diagonal = cell.q_stop - cell.k_stop
        left, right = cell.hi - diagonal, diagonal - cell.lo
        return _Shape(segment, left if left < columns - 1 else None, right if right < rows - 1 else None)

    @property
    def flexibility(self) -> int:
        return (self.left is None) + (self.right is None)

    @property
    def order(self) -> tuple[int, int]:
        return -1 if self.left is None else self.left, -1 if self.right is None else self.right

    def fits(self, left: int | None, right: int | None) -> bool:
        columns = self.segment.k_stop - self.segment.k_start
        rows = self.segment.q_stop - self.segment.q_start
        return _side_fits(self.left, left, columns) and _side_fits(self.right, right, rows)


def _side_fits(needed: int | None, given: int | None, length: int) -> bool:
    return needed == given or (needed is None and given is not None and given >= length - 1)


@dataclass(slots=True)
class _Launch:
    """A launch being filled."""

    left: int | None
    right: int | None
    rows: list[tuple[int, int, Segment]] = field(default_factory=list)

    def takes(self, shape: _Shape) -> bool:
        """Whether the segment has this launch's window and none of its rows."""
        if not shape.fits(self.left, self.right):
            return False
        place = bisect_left(self.rows, shape.segment.q_start, key=lambda row: row[0])
        clear_after = place == len(self.rows) or shape.segment.q_stop <= self.rows[place][0]
        return clear_after and (place == 0 or self.rows[place - 1][1] <= shape.segment.q_start)

    def add(self, segment: Segment) -> None:
        insort(self.rows, (segment.q_start, segment.q_stop, segment), key=lambda row: row[0])

    def call(self) -> KernelCall:
        return KernelCall(tuple(segment for _, _, segment in self.rows), self.left, self.right)

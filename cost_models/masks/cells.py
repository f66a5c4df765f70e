"""A cell is one banded rectangle of *local* rows and columns, tight on all sides: the shape of a kernel's segment.

    cell = {(i, j) : q_start <= i < q_stop,  k_start <= j < k_stop,  lo <= i - j <= hi}

Tight: every row and every column holds a pair, and both bounds are attained. So two cells describe the same pairs only
if they are equal, and the union of disjoint cells is itself a cell exactly if the smallest cell around them holds as
many pairs as they do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from cost_models.masks.blocks import UNBOUNDED, Block, BlockColumns, clip_array, clip_range, local_band
from cost_models.masks.counting import IntArray, count_in_band, count_in_band_array
from cost_models.masks.tokens import TokenRange
from traces.errors import InputError


class Cell(NamedTuple):
    """Local rows, columns and band, with the number of pairs."""

    q_start: int
    q_stop: int
    k_start: int
    k_stop: int
    lo: int
    hi: int
    pairs: int


def build_cell(block: Block, q: TokenRange, k: TokenRange, q_offset: int, k_offset: int) -> Cell | None:
    """The pairs of a block between two ranges whose first tokens are row ``q_offset`` and column ``k_offset``.

    Returns
    -------
    cell, or None where there are no pairs.

    >>> build_cell(Block(0, 8, 0, 8, lo=0), TokenRange(1, 8, 4), TokenRange(2, 8, 4), 0, 0)
    Cell(q_start=1, q_stop=2, k_start=0, k_stop=1, lo=1, hi=1, pairs=1)
    """
    skipped_q, first_q, rows = clip_range(q, block.q_start, block.q_stop)
    skipped_k, first_k, columns = clip_range(k, block.k_start, block.k_stop)
    if not rows or not columns:
        return None
    q_start, k_start = q_offset + skipped_q, k_offset + skipped_k
    if q.stride == k.stride or columns == 1:
        lo, hi = local_band(block, first_q, first_k, q.stride)
    elif rows == 1:
        lo, hi = local_band(block, first_q, first_k, k.stride)
    else:
        nearest, farthest = first_q - first_k - (columns - 1) * k.stride, first_q - first_k + (rows - 1) * q.stride
        lo, hi = _all_or_none(block, nearest, farthest)
    shift = q_start - k_start
    return _tighten(q_start, q_start + rows, k_start, k_start + columns, lo + shift, hi + shift)


def cell_columns(blocks: BlockColumns, rows: IntArray, columns: IntArray, stride: int) -> IntArray:
    """`build_cell` for arrays: one column for each cell, its rows the fields of `Cell`; empty ones are left out.

    Parameters
    ----------
    blocks : one for each element, of up to 2^30 tokens.
    rows, columns : (first token, stop, position of the first) of the query and of the key range of each element.
    stride : distance of neighbouring tokens, in all ranges.

    >>> blocks = BlockColumns.of((Block(0, 8, 0, 8, lo=0), Block(0, 8, 8, 16, lo=0)))
    >>> cell_columns(blocks, np.array([[0, 0], [8, 8], [0, 0]]), np.array([[0, 8], [8, 16], [0, 8]]), 1).T
    array([[ 0,  8,  0,  8,  0,  7, 36]])
    """
    first_q, n_rows = clip_array(rows[0], rows[1], blocks.q_start, blocks.q_stop, stride)
    first_k, n_columns = clip_array(columns[0], columns[1], blocks.k_start, blocks.k_stop, stride)
    q_start, k_start = rows[2] + (first_q - rows[0]) // stride, columns[2] + (first_k - columns[0]) // stride
    q_stop, k_stop, ahead = q_start + n_rows, k_start + n_columns, first_q - first_k
    shift = q_start - k_start
    lo = np.maximum(shift - (ahead - blocks.lo) // stride, q_start - k_stop + 1)
    hi = np.minimum(shift + (blocks.hi - ahead) // stride, q_stop - 1 - k_start)
    tight = (
        np.maximum(q_start, k_start + lo), np.minimum(q_stop, k_stop + hi),
        np.maximum(k_start, q_start - hi), np.minimum(k_stop, q_stop - lo), lo, hi,
    )  # fmt: skip
    q_start, q_stop, k_start, k_stop, lo, hi = np.array(tight)[:, (n_rows > 0) & (n_columns > 0) & (lo <= hi)]
    shift = q_start - k_start
    pairs = count_in_band_array(q_stop - q_start, k_stop - k_start, lo - shift, hi - shift)
    return np.array((q_start, q_stop, k_start, k_stop, lo, hi, pairs))


def _all_or_none(block: Block, nearest: int, farthest: int) -> tuple[int, int]:
    """A band on positions for unequal strides: with all pairs or none. One that cuts is no band of positions."""
    lo, hi = block.band
    if lo <= nearest and farthest <= hi:
        return -UNBOUNDED, UNBOUNDED
    if hi < nearest or farthest < lo:
        return UNBOUNDED, -UNBOUNDED
    raise InputError(
        "query and key ranges differ in stride where the mask cuts between them",
        got=f"{block}",
        expected="ranges of one stride",
    )


def _tighten(q_start: int, q_stop: int, k_start: int, k_stop: int, lo: int, hi: int) -> Cell | None:
    """Drop empty rows and columns, and diagonals outside the rectangle."""
    lo, hi = max(lo, q_start - k_stop + 1), min(hi, q_stop - 1 - k_start)
    if lo > hi:
        return None
    rows = max(q_start, k_start + lo), min(q_stop, k_stop + hi)
    columns = max(k_start, q_start - hi), min(k_stop, q_stop - lo)
    return _counted(*rows, *columns, lo, hi)


def _counted(q_start: int, q_stop: int, k_start: int, k_stop: int, lo: int, hi: int) -> Cell:
    shift = q_start - k_start
    pairs = count_in_band(q_stop - q_start, k_stop - k_start, lo - shift, hi - shift)
    return Cell(q_start, q_stop, k_start, k_stop, lo, hi, pairs)


def merge_cells(cells: Sequence[Cell]) -> list[Cell]:
    """The same pairs in fewer cells: neighbours, in order of rows or of columns, are joined while that gives a cell.

    >>> square, beside = Cell(0, 4, 0, 4, 0, 3, 10), Cell(4, 8, 0, 4, 1, 7, 16)
    >>> merge_cells([square, beside, Cell(4, 8, 4, 8, 0, 3, 10)])
    [Cell(q_start=0, q_stop=8, k_start=0, k_stop=8, lo=0, hi=7, pairs=36)]
    """
    whole = _join(cells)
    if whole:
        return [whole]
    merged, before = list(cells), len(cells) + 1
    while len(merged) < before:
        before = len(merged)
        merged = _merge_neighbours(merged, _by_columns)
        merged = _merge_neighbours(merged, _by_rows)
    return merged


def _by_columns(cell: Cell) -> tuple[int, int]:
    return cell.k_start, cell.q_start


def _by_rows(cell: Cell) -> tuple[int, int]:
    return cell.q_start, cell.k_start


def _merge_neighbours(cells: Sequence[Cell], order: Callable[[Cell], tuple[int, int]]) -> list[Cell]:
    merged: list[Cell] = []
    for cell in sorted(cells, key=order):
        merged.append(cell)
        while len(merged) > 1 and not _apart(*merged[-2:]) and (joined := _join(merged[-2:])):
            merged[-2:] = [joined]
    return merged


def _apart(a: Cell, b: Cell) -> bool:
    """Whether two cells surely cannot be joined: a gap between them, or b below and right of a with an empty corner.

    A shortcut: most neighbours are different documents or tiles.
    """
    if b.q_start > a.q_stop or b.k_start > a.k_stop or a.q_start > b.q_stop or a.k_start > b.k_stop:
        return True
    if a.q_stop > b.q_start or a.k_stop > b.k_start:
        return False
    return min(a.lo, b.lo) <= b.q_start - a.k_stop + 1 <= max(a.hi, b.hi)


def _join(cells: Sequence[Cell]) -> Cell | None:
    """The union of disjoint cells, if it is a cell."""
    if not cells:
        return None
    q_start, q_stops, k_start, k_stops, lo, hi, pairs = zip(*cells, strict=True)
    around = _counted(min(q_start), max(q_stops), min(k_start), max(k_stops), min(lo), max(hi))
    return around if around.pairs == sum(pairs) else None

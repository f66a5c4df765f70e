"""How many tiles of the score matrix each piece of an attention kernel's work visits.

A segment's row i sees columns i + (n_k - n_q) - left <= j <= i + (n_k - n_q) + right. A tile of rows [r, r + t_m)
visits the tiles of columns between the first column that its first row sees and the last one that its last row sees:

    visited = floor(last / t_n) - floor(first / t_n) + 1,
    first = max(0, r + n_k - n_q - left),   last = min(n_k - 1, r_last + n_k - n_q + right)

The same with rows and columns, left and right exchanged gives the tiles of rows that a tile of columns visits. Of those
visited, a tile is whole if its last row's first column and its first row's last column leave all of it in,

    whole = floor((min(n_k - 1, r + n_k - n_q + right) + 1) / t_n) - ceil(max(0, r_last + n_k - n_q - left) / t_n),

and the kernel applies the mask to the others.
Source: flash-attention 2 (`flash_fwd_kernel.h`, n_block_min and n_block_max; `flash_bwd_kernel.h`, m_block_min, max).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cost_models.masks import KernelCall

IntArray = NDArray[np.int64]

_UNBOUNDED = 2**40


class Visits(NamedTuple):
    """Tiles of the inner loop, per piece of work: all that it visits, and those of them that the mask cuts."""

    tiles: IntArray
    masked: IntArray


def tiles_per_row_tile(call: KernelCall, tile_rows: int, tile_columns: int) -> Visits:
    """Tiles that each tile of rows visits, over all segments: the pieces of work of a forward kernel.

    >>> from cost_models.masks import Segment
    >>> causal = KernelCall((Segment(0, 512, 0, 512),), None, 0)
    >>> [counts.tolist() for counts in tiles_per_row_tile(causal, 128, 64)]
    [[2, 4, 6, 8], [2, 2, 2, 2]]
    """
    rows, columns = _lengths(call)
    runs = _runs(rows, columns, call.left, call.right, tile_rows, tile_columns)
    return Visits(runs.visited, runs.visited - runs.whole)


def tiles_per_column_tile(call: KernelCall, tile_rows: int, tile_columns: int) -> Visits:
    """Tiles that each tile of columns visits: the pieces of work of a backward kernel.

    >>> from cost_models.masks import Segment
    >>> causal = KernelCall((Segment(0, 512, 0, 512),), None, 0)
    >>> [counts.tolist() for counts in tiles_per_column_tile(causal, 64, 128)]
    [[8, 6, 4, 2], [2, 2, 2, 2]]
    """
    rows, columns = _lengths(call)
    runs = _runs(columns, rows, call.right, call.left, tile_columns, tile_rows)
    return Visits(runs.visited, runs.visited - runs.whole)


def tiles_of_whole_grid(calls: Sequence[KernelCall], tile_rows: int, tile_columns: int, by_rows: bool) -> Visits:
    """Tiles that each tile of rows (of columns, unless ``by_rows``) visits where the grid lies over all segments.

    Several calls are one launch of a kernel for general masks; their pairs are disjoint.

    >>> from cost_models.masks import Segment
    >>> documents = KernelCall((Segment(0, 96, 0, 96), Segment(96, 256, 96, 256)), None, None)
    >>> [counts.tolist() for counts in tiles_of_whole_grid([documents], 128, 64, by_rows=True)]
    [[4, 3], [4, 1]]
    """
    tile, other = (tile_rows, tile_columns) if by_rows else (tile_columns, tile_rows)
    parts = [_runs_on_grid(call, tile, other, by_rows) for call in calls]
    piece, first, last, whole = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((first, piece))
    piece, first, last, whole = piece[order], first[order], last[order], whole[order]
    far = piece * (int(last.max(initial=0)) + 2)  # pieces apart, so that a running maximum starts anew at each
    reached = np.maximum.accumulate(last + far)
    before = np.concatenate([[-1], reached[:-1]])
    fresh = np.maximum(last + far - np.maximum(first + far - 1, before), 0)
    pieces, start = np.unique(piece, return_index=True)
    if not len(pieces):
        return Visits(piece, piece)
    visited, full = np.add.reduceat(fresh, start), np.add.reduceat(whole, start)
    return Visits(visited, visited - np.minimum(full, visited))


def _lengths(call: KernelCall) -> tuple[IntArray, IntArray]:
    rows = np.array([segment.q_stop - segment.q_start for segment in call.segments], dtype=np.int64)
    columns = np.array([segment.k_stop - segment.k_start for segment in call.segments], dtype=np.int64)
    return rows, columns


class _Runs(NamedTuple):
    """Per tile of rows of each segment: the columns that it meets, how many tiles they span, and how many are whole."""

    segment: IntArray
    first_row: IntArray
    last_row: IntArray
    first: IntArray
    last: IntArray
    visited: IntArray
    whole: IntArray


def _runs(
    rows: IntArray, columns: IntArray, left: int | None, right: int | None, tile_rows: int, tile_columns: int,
    row_offset: IntArray | int = 0, column_offset: IntArray | int = 0,
) -> _Runs:  # fmt: skip
    """Runs of tiles; offsets are where the segments begin in their tiles, 0 where each has its own grid."""
    if len(rows) == 1 and isinstance(row_offset, int):
        first_row = np.arange(-(-int(rows[0]) // tile_rows)) * tile_rows
        segment = np.zeros(len(first_row), dtype=np.int64)
        last_row, at = np.minimum(first_row + tile_rows, rows) - 1, column_offset
        diagonal, last_column = columns - rows, columns - 1
    else:
        segment, edge = _edges(rows, np.broadcast_to(row_offset, rows.shape), tile_rows)
        first_row, last_row = np.maximum(edge, 0), np.minimum(edge + tile_rows, rows[segment]) - 1
        at = np.broadcast_to(column_offset, rows.shape)[segment]
        diagonal, last_column = (columns - rows)[segment], columns[segment] - 1
    back = diagonal - (_UNBOUNDED if left is None else left)
    ahead = diagonal + (_UNBOUNDED if right is None else right)
    first, last = np.maximum(first_row + back, 0), np.minimum(last_row + ahead, last_column)
    visited = np.where(last >= first, (at + last) // tile_columns - (at + first) // tile_columns + 1, 0)
    begin, end = np.maximum(last_row + back, 0), np.minimum(first_row + ahead, last_column) + 1
    full = (at + end) // tile_columns - -(-(at + begin) // tile_columns)
    whole = np.minimum(np.maximum(full, 0), visited)
    return _Runs(segment, first_row, last_row, first, last, visited, whole)


def _edges(rows: IntArray, offset: IntArray, tile: int) -> tuple[IntArray, IntArray]:
    """Segment of each tile, and the row of it at which the tile begins (before the segment, where that is offset)."""
    tiles = np.where(rows > 0, -(-(offset + rows) // tile), 0)
    segment = np.repeat(np.arange(len(rows)), tiles)
    return segment, (np.arange(len(segment)) - np.repeat(np.cumsum(tiles) - tiles, tiles)) * tile - offset[segment]


def _runs_on_grid(
    call: KernelCall, tile: int, other: int, by_rows: bool
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """(piece, first, last tile met, whole tiles) for all that meet any; ``tile`` is the piece's side."""
    starts = np.array([(s.q_start, s.k_start) for s in call.segments], dtype=np.int64)
    rows, columns = _lengths(call)
    if by_rows:
        own, across, left, right = starts[:, 0], starts[:, 1], call.left, call.right
    else:
        own, across, left, right = starts[:, 1], starts[:, 0], call.right, call.left
        rows, columns = columns, rows
    runs = _runs(rows, columns, left, right, tile, other, own % tile, across % other)
    piece = (own[runs.segment] + runs.first_row) // tile
    partial = runs.last_row - runs.first_row + 1 < tile
    base = across[runs.segment]
    met = runs.visited > 0
    columns_of = ((base + runs.first) // other, (base + runs.last) // other, np.where(partial, 0, runs.whole))
    return piece[met], columns_of[0][met], columns_of[1][met], columns_of[2][met]

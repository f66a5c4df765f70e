"""How many tiles of the score matrix each piece of an attention kernel's work visits.

A segment's row i sees columns i + (n_k - n_q) - left <= j <= i + (n_k - n_q) + right. A tile of rows [r, r + t_m)
visits the tiles of columns between the first column that its first row sees and the last one that its last row sees:

    visited = floor(last / t_n) - floor(first / t_n) + 1,
    first = max(0, r + n_k - n_q - left),   last = min(n_k - 1, r_last + n_k - n_q + right)

The same with rows and columns, left and right exchanged gives the tiles of rows that a tile of columns visits.
Source: flash-attention 2 (`flash_fwd_kernel.h`, n_block_min and n_block_max; `flash_bwd_kernel.h`, m_block_min, max).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cost_models.masks import KernelCall

IntArray = NDArray[np.int64]

_UNBOUNDED = 2**40


def tiles_per_row_tile(call: KernelCall, tile_rows: int, tile_columns: int) -> IntArray:
    """Tiles that each tile of rows visits, over all segments: the pieces of work of a forward kernel.

    >>> from cost_models.masks import Segment
    >>> causal = KernelCall((Segment(0, 512, 0, 512),), None, 0)
    >>> tiles_per_row_tile(causal, 128, 64).tolist()
    [2, 4, 6, 8]
    """
    rows, columns = _lengths(call)
    return _visited(rows, columns, call.left, call.right, tile_rows, tile_columns)


def tiles_per_column_tile(call: KernelCall, tile_rows: int, tile_columns: int) -> IntArray:
    """Tiles that each tile of columns visits: the pieces of work of a backward kernel.

    >>> from cost_models.masks import Segment
    >>> causal = KernelCall((Segment(0, 512, 0, 512),), None, 0)
    >>> tiles_per_column_tile(causal, 64, 128).tolist()
    [8, 6, 4, 2]
    """
    rows, columns = _lengths(call)
    return _visited(columns, rows, call.right, call.left, tile_columns, tile_rows)


def _lengths(call: KernelCall) -> tuple[IntArray, IntArray]:
    rows = np.array([segment.q_stop - segment.q_start for segment in call.segments], dtype=np.int64)
    columns = np.array([segment.k_stop - segment.k_start for segment in call.segments], dtype=np.int64)
    return rows, columns


def _visited(
    rows: IntArray, columns: IntArray, left: int | None, right: int | None, tile_rows: int, tile_columns: int
) -> IntArray:
    tiles = -(-rows // tile_rows)
    segment = np.repeat(np.arange(len(rows)), tiles)
    first_row = (np.arange(len(segment)) - np.repeat(np.cumsum(tiles) - tiles, tiles)) * tile_rows
    last_row = np.minimum(first_row + tile_rows, rows[segment]) - 1
    diagonal = (columns - rows)[segment]
    first = np.maximum(first_row + diagonal - (_UNBOUNDED if left is None else left), 0)
    last = np.minimum(last_row + diagonal + (_UNBOUNDED if right is None else right), columns[segment] - 1)
    return np.where(last >= first, last // tile_columns - first // tile_columns + 1, 0)

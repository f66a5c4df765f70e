"""How many pairs of a grid lie in a diagonal band: closed forms, for numbers and for arrays.

Of the pairs 0 <= i < n, 0 <= j < m, those with i - j <= d number, with T(x) = x (x + 1) / 2 for x > 0 and else 0,

    B(n, m, d) = T(m + d) - T(m + d - n) - T(d) + T(d - n),

the triangle under the diagonal less what of it lies outside the grid (inclusion and exclusion). A band
lo <= i - j <= hi holds B(hi) - B(lo - 1). Where rows and columns have unequal strides s and t, the pairs with
s i - t j <= d are a sum over i of ceil((s i - d) / t), cut to [0, m]; that is a floor sum, which Euclid's algorithm
evaluates in O(log) steps (AtCoder Library, `floor_sum`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


def count_in_band(rows: int, columns: int, lo: int, hi: int) -> int:
    """Pairs of a ``rows`` x ``columns`` grid with ``lo <= i - j <= hi``; exact for any size.

    >>> count_in_band(4, 4, 0, 3), count_in_band(3, 5, -1, 0)
    (10, 6)
    """
    return max(0, _below(rows, columns, hi) - _below(rows, columns, lo - 1))


def _below(rows: int, columns: int, d: int) -> int:
    pairs = 0
    if (side := columns + d) > 0:
        pairs += side * (side + 1) // 2
    if (side := columns + d - rows) > 0:
        pairs -= side * (side + 1) // 2
    if d > 0:
        pairs -= d * (d + 1) // 2
    if (side := d - rows) > 0:
        pairs += side * (side + 1) // 2
    return pairs


def count_in_band_array(rows: IntArray, columns: IntArray, lo: IntArray, hi: IntArray) -> IntArray:
    """`count_in_band` element by element; int64, so for grids of up to 2^30 rows and columns.

    >>> count_in_band_array(np.array([4, 3]), np.array([4, 5]), np.array([0, -1]), np.array([3, 0])).tolist()
    [10, 6]
    """
    # Diagonals outside the grid are moved to its corner: their squares would overflow.
    upper = _below_array(rows, columns, np.clip(hi, -columns, rows))
    lower = _below_array(rows, columns, np.clip(lo - 1, -columns, rows))
    return np.asarray(np.maximum(upper - lower, 0))


def _below_array(rows: IntArray, columns: IntArray, d: IntArray) -> IntArray:
    below = _triangle_array(columns + d) - _triangle_array(columns + d - rows)
    return np.asarray(below - _triangle_array(d) + _triangle_array(d - rows))


def _triangle_array(x: IntArray) -> IntArray:
    positive = np.maximum(x, 0)
    return np.asarray(positive * (positive + 1) // 2)


def count_in_strided_band(rows: int, columns: int, row_stride: int, column_stride: int, lo: int, hi: int) -> int:
    """Pairs of a grid with ``lo <= row_stride i - column_stride j <= hi``.

    >>> count_in_strided_band(3, 3, 2, 1, 0, 2)
    5
    """
    strides = row_stride, column_stride
    return max(0, _strided_below(rows, columns, *strides, hi) - _strided_below(rows, columns, *strides, lo - 1))


def _strided_below(rows: int, columns: int, s: int, t: int, d: int) -> int:
    """Pairs with ``s i - t j <= d``: row i has ``columns - ceil((s i - d) / t)``, cut to [0, columns]."""
    if not columns:
        return 0
    first_cut = min(max(d // s + 1, 0), rows)
    first_empty = min(max(-((-t * (columns - 1) - 1 - d) // s), first_cut), rows)
    cut_rows = first_empty - first_cut
    hidden = floor_sum(cut_rows, t, s, s * first_cut - d + t - 1)
    return columns * first_empty - hidden


def floor_sum(terms: int, divisor: int, slope: int, offset: int) -> int:
    """Sum of ``floor((slope i + offset) / divisor)`` over ``0 <= i < terms``; slope and offset not negative.

    >>> floor_sum(4, 10, 6, 3), sum((6 * i + 3) // 10 for i in range(4))
    (3, 3)
    """
    total = 0
    while terms > 0:
        total += slope // divisor * (terms * (terms - 1) // 2) + offset // divisor * terms
        slope, offset = slope % divisor, offset % divisor
        terms, offset = divmod(slope * terms + offset, divisor)
        divisor, slope = slope, divisor
    return total

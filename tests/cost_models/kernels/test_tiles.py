"""Tiles of the inner loop against the definition of a window, pair by pair."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.kernels.tiles import tiles_of_whole_grid, tiles_per_column_tile, tiles_per_row_tile
from cost_models.masks import KernelCall, Segment

bounds = st.none() | st.integers(0, 40)
lengths = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4)


def build_call(sizes, left, right):
    """Segments one after the other, of (rows, columns)."""
    edges = np.cumsum([(0, 0), *sizes], axis=0)
    segments = [Segment(*map(int, (a[0], b[0], a[1], b[1]))) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return KernelCall(tuple(segments), left, right)


def allowed(segment, left, right):
    """Which (row, column) of a segment a launch computes."""
    rows, columns = segment.q_stop - segment.q_start, segment.k_stop - segment.k_start
    i, j = np.indices((rows, columns))
    offset = j - i - (columns - rows)
    return (offset >= (-np.inf if left is None else -left)) & (offset <= (np.inf if right is None else right))


def brute_force(pairs, tile_rows, tile_columns):
    """(visited, masked) per tile of rows: visited reach from the first to the last tile with a pair."""
    result = []
    for r in range(0, pairs.shape[0], tile_rows):
        band = pairs[r : r + tile_rows]
        columns = np.flatnonzero(band.any(axis=0))
        if not len(columns):
            result.append((0, 0))
            continue
        spans = range(columns[0] // tile_columns, columns[-1] // tile_columns + 1)
        tiles = [band[:, t * tile_columns : (t + 1) * tile_columns] for t in spans]
        whole = sum(tile.shape[1] == tile_columns and bool(tile.all()) for tile in tiles)
        result.append((len(tiles), len(tiles) - whole))
    return result


@settings(deadline=None)
@given(sizes=lengths, left=bounds, right=bounds, tile=st.sampled_from([(4, 8), (8, 4), (16, 16), (5, 3)]))
def test_own_grids_against_pairs(sizes, left, right, tile):
    call = build_call(sizes, left, right)
    masks = [allowed(segment, left, right) for segment in call.segments]
    by_rows = [pair for mask in masks for pair in brute_force(mask, *tile)]
    by_columns = [pair for mask in masks for pair in brute_force(mask.T, tile[1], tile[0])]
    assert list(zip(*tiles_per_row_tile(call, *tile), strict=True)) == by_rows
    assert list(zip(*tiles_per_column_tile(call, *tile), strict=True)) == by_columns


@settings(deadline=None)
@given(sizes=lengths, left=bounds, right=bounds, tile=st.sampled_from([(4, 8), (8, 4), (5, 3)]), rows=st.booleans())
def test_whole_grid_against_pairs(sizes, left, right, tile, rows):
    """Each tile with a pair counts once, whichever segments it holds; only tiles within one segment can be whole."""
    call = build_call(sizes, left, right)
    last = call.segments[-1]
    pairs, spanned = np.zeros((last.q_stop, last.k_stop), dtype=bool), {}
    for segment in call.segments:
        part = np.zeros_like(pairs)
        part[segment.q_start : segment.q_stop, segment.k_start : segment.k_stop] = allowed(segment, left, right)
        pairs |= part
        for piece, columns in spans_of(part if rows else part.T, *(tile if rows else tile[::-1])):
            spanned.setdefault(piece, set()).update(columns)
    visits = tiles_of_whole_grid([call], *tile, by_rows=rows)
    assert visits.tiles.tolist() == [len(spanned[piece]) for piece in sorted(spanned)]
    assert (visits.masked <= visits.tiles).all()
    grid = pairs if rows else pairs.T
    side, other = tile if rows else tile[::-1]
    whole = [
        sum(grid[p * side : (p + 1) * side, t * other : (t + 1) * other].sum() == side * other for t in spanned[p])
        for p in sorted(spanned)
    ]
    assert (visits.tiles - visits.masked <= whole).all()
    if len(sizes) == 1:
        assert (visits.tiles - visits.masked).tolist() == whole


def spans_of(part, tile_rows, tile_columns):
    """(tile of rows, tiles of columns between its first and last pair) of one segment's pairs."""
    for piece in range(-(-part.shape[0] // tile_rows)):
        columns = np.flatnonzero(part[piece * tile_rows : (piece + 1) * tile_rows].any(axis=0))
        if len(columns):
            yield piece, range(columns[0] // tile_columns, columns[-1] // tile_columns + 1)


@pytest.mark.parametrize("by_rows", [True, False])
def test_whole_grid_joins_calls(by_rows):
    halves = [KernelCall((Segment(0, 8, k, k + 4),), None, None) for k in (0, 4)]
    visits = tiles_of_whole_grid(halves, 4, 8, by_rows=by_rows)
    assert visits.tiles.tolist() == ([1, 1] if by_rows else [2])


def test_whole_grid_of_nothing():
    call = KernelCall((Segment(0, 4, 0, 0),), None, None)
    assert not len(tiles_of_whole_grid([call], 4, 4, by_rows=True).tiles)

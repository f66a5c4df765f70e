"""The pieces of work of one attention launch, and how long its multiprocessors are busy with them.

Forward: one piece per tile of queries, head and batch row, which visits the tiles of keys that hold a pair; a tile that
the mask cuts costs a whole one and the masking. Backward: one piece per tile of keys, which visits tiles of queries.

    piece = prologue [+ varlen] [+ checked mask]
            + (tiles + (mask cost - 1) masked + (window cost - 1) others of a window + skip cost skipped)
            b t_m t_n f / (eff peak / SMs)
    busy  = makespan(pieces)                             f FLOP per pair, b pieces share a multiprocessor

The makespan is `schedule`'s. What the inner loops load comes from the L2 cache as long as that holds what the pieces in
flight read. They share

    shared = heads in flight x longest segment x (D + Dv) e,        heads in flight = slots / pieces of a head

and a kv head's query heads read the same K and V.
Source: Dao 2023 (FlashAttention-2), sections 3.1 and 3.2; Shah et al. 2024 (FlashAttention-3), section 3.1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cost_models.kernels.schedule import makespan_in_order_s, makespan_s
from cost_models.kernels.shape import AttentionShape
from cost_models.kernels.split_keys import count_splits
from cost_models.kernels.tiles import Visits, tiles_of_whole_grid, tiles_per_column_tile, tiles_per_row_tile
from cost_models.masks import KernelCall, Segment

if TYPE_CHECKING:
    from cost_models.hardware import KernelPass


class Work(NamedTuple):
    """Makespan of a launch's pieces, and bytes that those in flight share."""

    busy_s: float
    shared_bytes: float


def count_pieces(
    curve: KernelPass,
    whole_grid: bool,
    sm_count: int,
    flop_per_s: float,
    calls: tuple[KernelCall, ...],
    shape: AttentionShape,
    direction: str,
    splits: int = 1,
    share: float = 1.0,
) -> Work:
    """Work of one launch.

    Parameters
    ----------
    whole_grid : tiles lie on one grid over all rows and columns (`AttentionCurve`).
    sm_count, flop_per_s : multiprocessors, and the peak of all.
    calls : one, unless the kernel takes general masks.
    splits : parts of each piece's inner loop that are pieces of their own (`split_keys`).
    share : of its tiles, that each piece visits.
    """
    weights = _weigh_pieces(curve, whole_grid, _placed(calls, whole_grid), direction, splits, share)
    if not len(weights):
        return Work(0.0, 1.0)
    copies = shape.problems
    sharing = min(curve.blocks_per_sm, -(-len(weights) * copies // sm_count))
    slots = sm_count * sharing
    if curve.in_order:
        sharing = 1
    flop = curve.tile_rows * curve.tile_columns * shape.flop_per_pair(direction)
    efficiency = curve.efficiency_at((shape.head_dim + shape.v_head_dim) / 2)
    tile_s = flop * sharing * sm_count / (efficiency * flop_per_s)
    first_s = curve.prologue_s + (curve.varlen_s if len(calls[0].segments) > 1 else 0.0)
    if curve.checked_mask_s and checks_bounds(calls[0], curve.tile_rows, curve.tile_columns):
        first_s += curve.checked_mask_s
    busy_s = _makespan_s(curve, sm_count, slots, copies, (first_s + weights * tile_s).tobytes())
    return Work(busy_s, shared_bytes(slots / len(weights), calls, shape, direction))


def _placed(calls: tuple[KernelCall, ...], whole_grid: bool) -> tuple[KernelCall, ...]:
    """Calls on one grid as they are; else one of segments that all begin at 0, as it does not matter where they lie."""
    if whole_grid:
        return calls
    call = calls[0]
    lengths = ((each.q_stop - each.q_start, each.k_stop - each.k_start) for each in call.segments)
    return (KernelCall(tuple(Segment(0, rows, 0, columns) for rows, columns in lengths), call.left, call.right),)


@lru_cache(maxsize=16384)
def _makespan_s(curve: KernelPass, sm_count: int, slots: int, copies: int, durations: bytes) -> float:
    """Time of pieces: many launches of different lengths have the same tiles."""
    durations_s = np.frombuffer(durations)
    if curve.in_order:
        return makespan_in_order_s(durations_s, copies, sm_count, curve.blocks_per_sm, curve.alone_share)
    return makespan_s(durations_s, copies, slots, curve.longest_first)


@lru_cache(maxsize=16384)
def _weigh_pieces(
    curve: KernelPass,
    whole_grid: bool,
    calls: tuple[KernelCall, ...],
    direction: str,
    splits: int,
    share: float,
) -> NDArray[np.float64]:
    """How many tiles' time each piece takes besides its prologue: the same for any heads, on any multiprocessors."""
    visits = _visits(curve, whole_grid, calls, direction)
    tiles, masked = (counts[visits.tiles > 0] for counts in visits)
    if not len(tiles):
        return np.zeros(0)
    if share < 1:
        tiles = np.ceil(tiles * share).astype(np.int64)
    windowed = curve.masks_window_tiles and calls[0].left is not None
    masked = tiles if windowed and curve.window_tile_cost is None else masked
    parts, cut = split_visits(Visits(tiles, masked), splits)
    weights = parts + (curve.masked_tile_cost - 1) * cut
    if windowed and curve.window_tile_cost is not None:
        weights = weights + (curve.window_tile_cost - 1) * (parts - cut)
    if not curve.skipped_tile_cost:
        return np.asarray(weights)
    inner = curve.tile_columns if direction == "forward" else curve.tile_rows
    skipped = np.maximum(-(-_longest(calls, direction, whole=whole_grid) // inner) - tiles, 0)
    return np.asarray(weights + curve.skipped_tile_cost * np.tile(skipped, splits) / splits)


def checks_bounds(call: KernelCall, tile_rows: int, tile_columns: int) -> bool:
    """Whether flash-attention 2 applies the mask by its variant that checks bounds (`KernelPass.checked_mask_s`).

    Source: csrc/flash_attn/src/flash_fwd_launch_template.h, is_even_MN and the switches around it.
    """
    if call.left is not None:
        return True
    (first, *others) = call.segments
    uneven = (first.q_stop - first.q_start) % tile_rows or (first.k_stop - first.k_start) % tile_columns
    return call.right is not None and bool(others or uneven)


def split_visits(visits: Visits, splits: int) -> Visits:
    """Of the pieces that pieces split into so many parts become, part after part: each has a range of all tiles.

    >>> tiles = np.array([2, 4])
    >>> [counts.tolist() for counts in split_visits(Visits(tiles, np.array([1, 1])), 2)]
    [[2, 2, 0, 2], [1, 0, 0, 1]]
    """
    tiles, masked = visits
    if splits == 1:
        return Visits(tiles, np.minimum(masked, tiles))
    each = -(-int(tiles.max(initial=0)) // splits)
    begin = each * np.arange(splits)[:, None]
    parts = np.clip(tiles - begin, 0, each)
    cut = np.clip(np.minimum(tiles - begin, each) - np.maximum(tiles - masked - begin, 0), 0, parts)
    return Visits(parts.reshape(-1), cut.reshape(-1))


def count_piece_waves(
    curve: KernelPass,
    whole_grid: bool,
    sm_count: int,
    calls: tuple[KernelCall, ...],
    shape: AttentionShape,
    direction: str,
) -> float:
    """Pieces of a launch, over those that run at once; parameters as for :func:`count_pieces`."""
    pieces = len(_weigh_pieces(curve, whole_grid, _placed(calls, whole_grid), direction, 1, 1.0))
    return pieces * shape.problems / (sm_count * curve.blocks_per_sm)


def choose_splits(
    curve: KernelPass, whole_grid: bool, sm_count: int, calls: tuple[KernelCall, ...], shape: AttentionShape,
    few_tiles: int,
) -> int:  # fmt: skip
    """Parts into which a forward launch of few queries splits its keys, 1 where it has enough pieces."""
    tiles = _visits(curve, whole_grid, calls, "forward").tiles
    pieces = int(np.count_nonzero(tiles)) * shape.problems
    return count_splits(pieces, sm_count * curve.blocks_per_sm, int(tiles.max(initial=0)), few_tiles)


def shared_bytes(heads: float, calls: tuple[KernelCall, ...], shape: AttentionShape, direction: str) -> float:
    """Bytes that the pieces in flight, of so many heads, share."""
    token_bytes = (shape.head_dim + shape.v_head_dim) * shape.element_bytes
    return _heads_in_flight(heads, shape, direction) * _longest(calls, direction) * token_bytes


def _visits(curve: KernelPass, whole_grid: bool, calls: tuple[KernelCall, ...], direction: str) -> Visits:
    forward = direction == "forward"
    if whole_grid:
        return tiles_of_whole_grid(calls, curve.tile_rows, curve.tile_columns, by_rows=forward)
    count = tiles_per_row_tile if forward else tiles_per_column_tile
    return count(calls[0], curve.tile_rows, curve.tile_columns)


def _heads_in_flight(heads: float, shape: AttentionShape, direction: str) -> float:
    """Distinct inner tensors that the pieces in flight read: K and V of kv heads, or Q and dO of heads."""
    group = shape.heads // shape.kv_heads if direction == "forward" else 1
    return max(1.0, min(heads, shape.problems) / group)


def _longest(calls: tuple[KernelCall, ...], direction: str, *, whole: bool = False) -> int:
    """Tokens of the inner loop in the longest segment, or to the last one: keys in forward, queries in backward."""
    if whole:
        ends = ((segment.k_stop, segment.q_stop) for call in calls for segment in call.segments)
        return max(end[direction == "backward"] for end in ends)
    segments = (segment for call in calls for segment in call.segments)
    if direction == "forward":
        return max(segment.k_stop - segment.k_start for segment in segments)
    return max(segment.q_stop - segment.q_start for segment in segments)

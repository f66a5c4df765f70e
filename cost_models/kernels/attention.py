"""Seconds of one attention kernel call.

Forward: one piece of work per tile of queries, head and batch row, which visits the tiles of keys that hold a pair; a
tile that the mask cuts costs a whole one. Backward: one piece per tile of keys, which visits tiles of queries.

    block = prologue + tiles b t_m t_n f / (eff peak / SMs)         f FLOP per pair, b blocks share a multiprocessor
    call  = overhead + max(makespan(blocks), bytes / HBM rate)

The makespan is `schedule`'s. Backward adds what flash-attention launches besides: before it delta = rowsum(dO O) with
the clearing of the fp32 dQ accumulator, after it the accumulator's conversion and, for grouped heads, the sum of dK and
dV over the query heads of a group.

A rank's time per call does not depend on where its rows lie, so every distinct call is priced once.
Source: Dao 2023 (FlashAttention-2), sections 3.1 and 3.2; Shah et al. 2024 (FlashAttention-3), section 3.1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from cost_models.kernels.elementwise import estimate_elementwise_s
from cost_models.kernels.schedule import makespan_s
from cost_models.kernels.shape import AttentionShape
from cost_models.kernels.tiles import tiles_per_column_tile, tiles_per_row_tile
from cost_models.masks import KernelCall

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile, KernelPass


def estimate_attention_s(
    profile: HardwareProfile,
    kernel: str,
    call: KernelCall,
    shape: AttentionShape,
    direction: str,
    *,
    precomputed_delta: bool = False,
) -> float:
    """Time of one attention call on the GPU, in seconds.

    Parameters
    ----------
    profile : the GPU.
    kernel : one of ``profile.kernels``.
    call : segments and window.
    shape : batch, heads, head dims, dtype.
    direction : ``forward`` or ``backward``.
    precomputed_delta : backward is given rowsum(dO O), and does not compute it (Burst).

    Raises
    ------
    InputError
        Where the GPU has no such kernel, or no matrix units for the dtype.
    """
    curve = profile.kernel(kernel).direction(direction)
    rate = profile.peak(shape.dtype) / profile.sm_count
    compute = _compute_s(curve, rate, profile.sm_count, call, shape, direction)
    if compute == 0:
        return 0.0
    rows, columns = _tokens(call)
    floor = _bytes(rows, columns, shape, direction) / profile.hbm_bytes_per_s / profile.elementwise.efficiency["copy"]
    extra = _around_backward_s(profile, rows, columns, shape, precomputed_delta) if direction == "backward" else 0.0
    return curve.overhead_s + max(compute, floor) + extra


@lru_cache(maxsize=65536)
def _compute_s(
    curve: KernelPass, sm_flop_per_s: float, sm_count: int, call: KernelCall, shape: AttentionShape, direction: str
) -> float:
    """Makespan of the main kernel's blocks."""
    count = tiles_per_row_tile if direction == "forward" else tiles_per_column_tile
    tiles = count(call, curve.tile_rows, curve.tile_columns)
    tiles = tiles[tiles > 0]
    if not len(tiles):
        return 0.0
    sharing = min(curve.blocks_per_sm, -(-len(tiles) * shape.problems // sm_count))
    flop = curve.tile_rows * curve.tile_columns * shape.flop_per_pair(direction)
    efficiency = curve.efficiency_at((shape.head_dim + shape.v_head_dim) / 2)
    durations = curve.prologue_s + tiles * (flop * sharing / (efficiency * sm_flop_per_s))
    return makespan_s(durations, shape.problems, sm_count * sharing, curve.longest_first)


def _tokens(call: KernelCall) -> tuple[int, int]:
    """Rows and columns of all segments."""
    rows = sum(segment.q_stop - segment.q_start for segment in call.segments)
    return rows, sum(segment.k_stop - segment.k_start for segment in call.segments)


def _bytes(rows: int, columns: int, shape: AttentionShape, direction: str) -> float:
    """Least that the main kernel moves: Q, K, V, O, LSE; backward also dO, delta, the fp32 dQ twice, dK and dV."""
    e, d, dv = shape.element_bytes, shape.head_dim, shape.v_head_dim
    queries, keys = rows * shape.problems, columns * shape.batch * shape.kv_heads
    forward = queries * ((d + dv) * e + 4) + keys * (d + dv) * e
    if direction == "forward":
        return forward
    return forward + queries * (4 + 8 * d) + columns * shape.problems * (d + dv) * e


def _around_backward_s(
    profile: HardwareProfile, rows: int, columns: int, shape: AttentionShape, precomputed_delta: bool
) -> float:
    """Kernels before and after the main one: delta and clearing, converting dQ, adding dK and dV of a group."""
    e, d, dv = shape.element_bytes, shape.head_dim, shape.v_head_dim
    queries, keys = rows * shape.problems, columns * shape.problems
    delta = (0, 0) if precomputed_delta else (2 * dv * e, 4)
    seconds = estimate_elementwise_s(profile, queries * delta[0], queries * (delta[1] + 4 * d), "copy")
    seconds += estimate_elementwise_s(profile, queries * 4 * d, queries * d * e, "copy")
    if shape.kv_heads < shape.heads:
        size = keys * (d + dv) * e
        seconds += estimate_elementwise_s(profile, size, size * shape.kv_heads // shape.heads, "copy")
    return float(seconds)

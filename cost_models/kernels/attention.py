"""Seconds of one attention kernel call.

    call  = overhead + max(b - e + e / (1 - loss e / (e + tau)), bytes / HBM rate)
    b = busy (1 + miss cost missed),    e = max(0, b - boost)

busy is the makespan of the pieces (`pieces`). The loss is that of clock under the power limit, which comes with time:
for the first `boost` seconds after a rest the GPU keeps its highest clock.
The bytes are the least that the kernel moves. What the pieces in flight share (`pieces`) is read by all
multiprocessors, so that both partitions of the L2 cache hold it: missed = max(0, 1 - L2 / (2 shared)).

Forward calls of few queries split their keys (`split_keys`), where that is faster.

Backward adds what flash-attention launches besides: before it delta = rowsum(dO O) with the clearing of the fp32 dQ
accumulator, after it the accumulator's conversion and, for grouped heads, the sum of dK and dV over the query heads of
a group.

A rank's time per call does not depend on where its rows lie, so every distinct call is priced once.
Source: Dao 2023 (FlashAttention-2), sections 3.1 and 3.2; Shah et al. 2024 (FlashAttention-3), section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cost_models.kernels.elementwise import estimate_elementwise_s
from cost_models.kernels.launches import launches_of, merged_rows
from cost_models.kernels.pieces import choose_splits, count_pieces
from cost_models.kernels.power import slowed_s
from cost_models.kernels.shape import AttentionShape
from cost_models.kernels.split_keys import (
    estimate_combine_s,
    has_few_queries,
    least_tiles,
    narrow_tile_rows,
    pack_heads,
    split_tiles,
)
from cost_models.masks import MAX_LAUNCHES, KernelCall

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
    worked_s: float = 0.0,
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
    worked_s : how long the GPU has worked without a rest before the call: the power limit counts it (``boost_s``).

    Raises
    ------
    InputError
        Where the GPU has no such kernel, or no matrix units for the dtype.
    """
    calls = (call,)
    return estimate_calls_s(
        profile, kernel, calls, shape, direction, precomputed_delta=precomputed_delta, worked_s=worked_s
    )


def estimate_calls_s(
    profile: HardwareProfile,
    kernel: str,
    calls: Sequence[KernelCall],
    shape: AttentionShape,
    direction: str,
    *,
    precomputed_delta: bool = False,
    worked_s: float = 0.0,
    share: float = 1.0,
) -> float:
    """Time of all calls of a lowering, in seconds.

    They run one after the other, each in the launches that the kernel makes of it (`launches`); more than
    `MAX_LAUNCHES` are one launch of a kernel for general masks. ``share`` is of the tiles, where a kernel chooses among
    them. Other parameters and errors are those of :func:`estimate_attention_s`.
    """
    curve = profile.kernel(kernel)
    if len(calls) > MAX_LAUNCHES and curve.general_masks:
        return _price(profile, kernel, tuple(calls), shape, direction, precomputed_delta, worked_s, share)
    total = 0.0
    for call in calls:
        launches = launches_of(curve, call)
        for launch in launches:
            total += _price(profile, kernel, (launch,), shape, direction, precomputed_delta, worked_s + total, share)
        if len(launches) > 1 and not curve.windows:
            total += _joined_s(profile, call, shape, direction)
            total += sum(_gathered_s(profile, launch, shape, direction) for launch in launches)
    return total


def _gathered_s(profile: HardwareProfile, launch: KernelCall, shape: AttentionShape, direction: str) -> float:
    """Copies of Q, K, V, O and dO in a backward launch that has a part of every batch row."""
    if direction == "forward" or shape.batch == 1:
        return 0.0
    sizes = gathered_bytes(launch, shape)
    return sum(float(estimate_elementwise_s(profile, size, size, "copy")) for size in sizes)


def gathered_bytes(launch: KernelCall, shape: AttentionShape) -> tuple[int, ...]:
    """Sizes of Q, K, V, O and dO of a launch."""
    rows, columns = _tokens((launch,))
    queries, keys = rows * shape.problems * shape.element_bytes, columns * shape.batch * shape.kv_heads
    keys *= shape.element_bytes
    return (
        queries * shape.head_dim, keys * shape.head_dim, keys * shape.v_head_dim, queries * shape.v_head_dim,
        queries * shape.v_head_dim,
    )  # fmt: skip


def _joined_s(profile: HardwareProfile, call: KernelCall, shape: AttentionShape, direction: str) -> float:
    """Putting together what several launches made of one segment: a merge in fp32 and a cast, or sums of gradients."""
    shared = merged_rows(call)
    if not shared:
        return 0.0
    rows, columns = _tokens((call,))
    queries, keys = rows * shape.problems * shape.v_head_dim, columns * shape.batch * shape.kv_heads * shape.v_head_dim
    e = shape.element_bytes
    if direction == "forward":
        seconds = estimate_elementwise_s(profile, 0, 4 * queries, "fill")
        merged = queries + shared * shape.problems * shape.v_head_dim
        seconds += estimate_elementwise_s(profile, (4 + e) * merged, 4 * merged, "merge")
        return float(seconds + estimate_elementwise_s(profile, 4 * queries, e * queries, "copy"))
    filled = e * (queries + 2 * keys)
    seconds = estimate_elementwise_s(profile, 0, filled, "fill")
    return float(seconds + estimate_elementwise_s(profile, 2 * filled, filled, "accumulate"))


def _price(
    profile: HardwareProfile,
    kernel: str,
    calls: tuple[KernelCall, ...],
    shape: AttentionShape,
    direction: str,
    precomputed_delta: bool,
    worked_s: float,
    share: float,
) -> float:
    """Time of one launch."""
    curve = profile.kernel(kernel)
    chosen = curve.direction(direction, shape.head_dim)
    grid = curve.whole_grid or len(calls) > 1
    peak, (rows, columns) = profile.peak(shape.dtype), _tokens(calls)
    # Kernels for cached rows pack and split any few queries, whoever's they are.
    variant = kernel if shape.row_bytes is None or kernel == "triton" else "cached"
    few = direction == "forward" and has_few_queries(variant, calls, chosen.tile_rows)
    of_memory = chosen.read_share if few and chosen.read_share else profile.elementwise.efficiency["copy"]
    floor = _bytes(rows, columns, shape, direction) / (profile.hbm_bytes_per_s * of_memory)

    def main_s(on_grid: AttentionShape, splits: int = 1, tiled: KernelPass = chosen) -> float:
        work = count_pieces(tiled, grid, profile.sm_count, peak, calls, on_grid, direction, splits, share)
        busy = work.busy_s * (1 + chosen.l2_miss_cost * missed_share(profile, work.shared_bytes))
        compute = slowed_s(chosen, busy, worked_s)
        return max(compute, floor) if busy else 0.0

    if few:
        packed = pack_heads(variant, calls[0], shape, chosen.tile_rows)
        if shape.row_bytes is not None:
            narrow = narrow_tile_rows(calls[0], shape, chosen.tile_rows)
            chosen = chosen.model_copy(update={"tile_rows": narrow})
        tiled = split_tiles(variant, chosen, shape.head_dim)
        splits = choose_splits(tiled, grid, profile.sm_count, calls, packed, least_tiles(variant))
        main = main_s(packed, 1, chosen)
        if splits > 1:
            main = min(main, main_s(packed, splits, tiled) + estimate_combine_s(profile, rows, splits, shape))
    else:
        main = main_s(shape)
    if not main:
        return 0.0
    extra = estimate_around_s(
        profile, calls, shape, direction, computes_delta=not (precomputed_delta and curve.takes_delta)
    )
    if precomputed_delta and not curve.takes_delta:
        extra += _output_with_delta_s(profile, rows, shape)
    return chosen.overhead_s + main + extra


def missed_share(profile: HardwareProfile, shared_bytes: float) -> float:
    """Part of the inner loops' loads that comes from memory: each half of the L2 cache holds what is shared."""
    return max(0.0, 1 - profile.l2_bytes / 2 / shared_bytes)


def _tokens(calls: tuple[KernelCall, ...]) -> tuple[int, int]:
    """Rows and columns that are read: of all segments, or of several calls each once."""
    segments = [segment for call in calls for segment in call.segments]
    if len(calls) > 1:
        return max(s.q_stop for s in segments), max(s.k_stop for s in segments)
    return sum(s.q_stop - s.q_start for s in segments), sum(s.k_stop - s.k_start for s in segments)


def attention_bytes(calls: Sequence[KernelCall], shape: AttentionShape, direction: str) -> float:
    """Least that the main kernels of some calls move to and from memory."""
    return sum([_bytes(*_tokens((call,)), shape, direction) for call in calls])


def _bytes(rows: int, columns: int, shape: AttentionShape, direction: str) -> float:
    """Least that the main kernel moves: Q, K, V, O, LSE; backward also dO, delta, the fp32 dQ twice, dK and dV."""
    e, d, dv = shape.element_bytes, shape.head_dim, shape.v_head_dim
    queries, keys = rows * shape.problems, columns * shape.batch * shape.kv_heads
    forward = queries * ((d + dv) * e + 4) + keys * shape.key_bytes
    if direction == "forward":
        return forward
    return forward + queries * (4 + 8 * d) + columns * shape.problems * (d + dv) * e


def estimate_around_s(
    profile: HardwareProfile,
    calls: tuple[KernelCall, ...],
    shape: AttentionShape,
    direction: str,
    *,
    computes_delta: bool = True,
) -> float:
    """Kernels before and after the main one of a launch, in seconds; none in forward.

    In backward: delta and clearing, converting dQ, adding dK and dV of a group.
    """
    if direction == "forward":
        return 0.0
    rows, columns = _tokens(calls)
    e, d, dv = shape.element_bytes, shape.head_dim, shape.v_head_dim
    queries, keys = rows * shape.problems, columns * shape.problems
    seconds = estimate_before_s(profile, calls, shape, direction, computes_delta=computes_delta)
    seconds += float(estimate_elementwise_s(profile, queries * 4 * d, queries * d * e, "copy"))
    if shape.kv_heads < shape.heads:
        size = keys * (d + dv) * e
        seconds += float(estimate_elementwise_s(profile, size, size * shape.kv_heads // shape.heads, "copy"))
    return seconds


def estimate_before_s(
    profile: HardwareProfile,
    calls: tuple[KernelCall, ...],
    shape: AttentionShape,
    direction: str,
    *,
    computes_delta: bool = True,
) -> float:
    """The kernel before the main one of a launch, in seconds: in backward delta and clearing, none in forward."""
    if direction == "forward":
        return 0.0
    queries = _tokens(calls)[0] * shape.problems
    delta = (2 * shape.v_head_dim * shape.element_bytes, 4) if computes_delta else (0, 0)
    read, written = queries * delta[0], queries * (delta[1] + 4 * shape.head_dim)
    return float(estimate_elementwise_s(profile, read, written, "copy"))


def _output_with_delta_s(profile: HardwareProfile, rows: int, shape: AttentionShape) -> float:
    """An output from dO and delta, whose row sums with dO are that delta: for kernels that compute it themselves."""
    size = rows * shape.problems * shape.v_head_dim * shape.element_bytes
    return float(estimate_elementwise_s(profile, size + 4 * rows * shape.problems, size, "reduce"))

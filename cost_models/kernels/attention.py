"""Seconds of one attention kernel call.

    call  = overhead + max(busy (1 + miss cost missed) / (1 - loss busy / (busy + tau)), bytes / HBM rate)

busy is the makespan of the pieces (`pieces`). The loss is that of clock under the power limit, which comes with time.
The bytes are the least that the kernel moves. What the pieces in flight share (`pieces`) is read by all
multiprocessors, so that both partitions of the L2 cache hold it: missed = max(0, 1 - L2 / (2 shared)).

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
from cost_models.kernels.pieces import count_pieces
from cost_models.kernels.shape import AttentionShape
from cost_models.masks import MAX_LAUNCHES, KernelCall

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile


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
    return _price(profile, kernel, (call,), shape, direction, precomputed_delta)


def estimate_calls_s(
    profile: HardwareProfile,
    kernel: str,
    calls: Sequence[KernelCall],
    shape: AttentionShape,
    direction: str,
    *,
    precomputed_delta: bool = False,
) -> float:
    """Time of all calls of a lowering, in seconds.

    They run one after the other; more than `MAX_LAUNCHES` are one launch of a kernel for general masks. Parameters and
    errors are those of :func:`estimate_attention_s`.
    """
    if len(calls) > MAX_LAUNCHES and profile.kernel(kernel).general_masks:
        return _price(profile, kernel, tuple(calls), shape, direction, precomputed_delta)
    return sum(_price(profile, kernel, (call,), shape, direction, precomputed_delta) for call in calls)


def _price(
    profile: HardwareProfile,
    kernel: str,
    calls: tuple[KernelCall, ...],
    shape: AttentionShape,
    direction: str,
    precomputed_delta: bool,
) -> float:
    """Time of one launch."""
    curve = profile.kernel(kernel)
    chosen = curve.direction(direction)
    grid = curve.whole_grid or len(calls) > 1
    work = count_pieces(chosen, grid, profile.sm_count, profile.peak(shape.dtype), calls, shape, direction)
    if not work.busy_s:
        return 0.0
    rows, columns = _tokens(calls)
    rate = profile.hbm_bytes_per_s * profile.elementwise.efficiency["copy"]
    floor = _bytes(rows, columns, shape, direction) / rate
    missed = max(0.0, 1 - profile.l2_bytes / 2 / work.shared_bytes)
    compute = (
        work.busy_s
        * (1 + chosen.l2_miss_cost * missed)
        / (1 - chosen.sustained_loss * work.busy_s / (work.busy_s + chosen.sustained_s))
    )
    extra = _around_backward_s(profile, rows, columns, shape, precomputed_delta) if direction == "backward" else 0.0
    return chosen.overhead_s + max(compute, floor) + extra


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

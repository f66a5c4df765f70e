"""When kernels hand out blocks: meanwhile a multiprocessor that becomes free goes to them, and to nobody else.

A kernel of w waves of blocks that starts on an empty GPU hands out its last blocks about a wave before its end,

    from its start until  t (1 - 1 / w),     w = blocks / places for blocks on the GPU; not at all where w <= 1.

Backward attention is three kernels: delta with the clearing of dQ, the main one, and conversions. Blocks of
memory-bound kernels are small: they hand out until they end.
Source: CUDA C++ programming guide, asynchronous concurrent execution; NVIDIA/Megatron-LM issues 533 and 827 (a
collective behind a kernel that fills the GPU starts when that ends).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cost_models.kernels.attention import AttentionTimes
from cost_models.kernels.gemm import count_waves, estimate_gemm_s
from cost_models.kernels.launches import launches_of
from cost_models.masks import KernelCall

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile

Handing = tuple[tuple[float, float], ...]
"""When an operation's kernels hand out blocks: (from, until) in order, as shares of its time."""

ALL_THE_TIME: Handing = ((0.0, 1.0),)


def attention_handing(times: AttentionTimes, calls: Sequence[KernelCall]) -> Handing:
    """When the kernels of some attention calls, one after the other, hand out blocks.

    >>> from cost_models.hardware import load_hardware
    >>> from cost_models.kernels.shape import AttentionShape
    >>> from cost_models.masks import Segment
    >>> call = KernelCall((Segment(0, 8192, 0, 8192),), None, 0)
    >>> shape = AttentionShape(1, 32, 8, 128, 128, "bf16")
    >>> ((begin, until),) = attention_handing(
    ...     AttentionTimes(load_hardware("a100-80"), "flash2", shape, "forward"), [call])
    >>> begin, round(until, 2)  # 64 x 32 pieces in 2 x 108 places
    (0.0, 0.89)
    """
    apart = [(launch,) for call in calls for launch in launches_of(times.curve, call)]
    launches = [tuple(calls)] if times.together(calls) else apart
    return _shares(list(_attention_kernels(times, launches)))


def gemm_handing(
    profile: HardwareProfile,
    sizes: Sequence[tuple[int, int, int]],
    dtype: str,
    weight_bits: float | None = None,
    planes: int = 1,
) -> Handing:
    """When products of ``sizes`` (m, n, k), one after the other, hand out blocks; rest as of `estimate_gemm_s`."""
    return _shares([
        (estimate_gemm_s(profile, *size, dtype, weight_bits, planes), count_waves(profile, *size, planes))
        for size in sizes
    ])  # fmt: skip


def _attention_kernels(
    times: AttentionTimes, launches: Sequence[tuple[KernelCall, ...]]
) -> Iterator[tuple[float, float]]:
    """Seconds and waves of each kernel in order; what comes after the main one is counted with the next."""
    for calls in launches:
        total, before = times.calls_s(calls), times.before_s(calls)
        if before:
            yield before, float("inf")
        yield max(total - before, 0.0), times.waves(calls)


def _shares(kernels: Sequence[tuple[float, float]]) -> Handing:
    """From seconds and waves of kernels in order."""
    total, begin, found = sum([seconds for seconds, _ in kernels]), 0.0, []
    for seconds, waves in kernels:
        if waves > 1 and seconds:
            found.append((begin / total, (begin + seconds * (1 - 1 / waves)) / total))
        begin += seconds
    return tuple(found)

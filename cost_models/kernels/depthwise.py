"""Seconds of a depthwise convolution: max(bytes at the copy rate, multiply-adds at the vector units' peak).

    vector peak = SMs x fp32 lanes x 2 x clock,    lanes of one SM: 64 on sm80, 128 on later ones

At k = 7 and 16 bits a kernel does 24.5 FLOP per byte: more than an A100's vector units do while its memory delivers a
byte (9.6), and than an H100's (18). cuDNN's kernels may be far from both bounds; measure them.
Source: NVIDIA A100, H100 and Ada architecture white papers (FP32 cores per SM).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cost_models.kernels.elementwise import estimate_elementwise_s

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile


def vector_flop_per_s(profile: HardwareProfile) -> float:
    """Peak of the units that are not tensor cores, in fp32.

    >>> from cost_models.hardware import load_hardware
    >>> round(vector_flop_per_s(load_hardware("h100-sxm")) / 1e12)
    62
    """
    lanes = 64 if profile.sm_arch == 80 else 128
    return 2.0 * profile.sm_count * lanes * profile.clock_hz


def estimate_stencil_s(profile: HardwareProfile, bytes_read: int, bytes_written: int, flop: int) -> float:
    """Time of a kernel that reads and writes so much and computes outside the tensor cores."""
    if not flop:
        return 0.0
    moving = float(estimate_elementwise_s(profile, bytes_read, bytes_written, "copy"))
    return max(moving, profile.elementwise.overhead_s + flop / vector_flop_per_s(profile))

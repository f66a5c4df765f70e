"""Seconds of attention, memory-bound and matrix-product kernels on a GPU.

Interface: :func:`estimate_attention_s`, :func:`estimate_calls_s`, :func:`estimate_elementwise_s`,
:func:`estimate_gemm_s`, :func:`attention_launches`, :func:`attention_workspace_bytes`, :func:`attention_bytes`,
:func:`attention_handing`, :func:`gemm_handing`, :func:`choose_kernel`, :func:`backward_fault`,
:func:`check_backward_size`, :func:`split_call`, :func:`merged_rows`, :class:`AttentionShape`, :class:`AttentionTimes`.

>>> from cost_models.hardware import load_hardware
>>> from cost_models.masks import KernelCall, Segment
>>> call = KernelCall((Segment(0, 32768, 0, 32768),), None, 0)
>>> shape = AttentionShape(1, 32, 32, 128, 128, "bf16")
>>> round(1e3 * estimate_attention_s(load_hardware("h100-sxm"), "cudnn", call, shape, "forward"))
13
"""

from cost_models.kernels.attention import AttentionTimes, estimate_attention_s, estimate_calls_s, gathered_bytes
from cost_models.kernels.choice import choose_kernel
from cost_models.kernels.depthwise import estimate_stencil_s
from cost_models.kernels.elementwise import estimate_elementwise_s
from cost_models.kernels.gemm import LEAST_WRITTEN_BYTES, estimate_gemm_s
from cost_models.kernels.handing import ALL_THE_TIME, Handing, attention_handing, gemm_handing
from cost_models.kernels.launch_times import attention_bytes, estimate_around_s, estimate_before_s, missed_share
from cost_models.kernels.launches import attention_launches, launches_of, merged_rows, split_call
from cost_models.kernels.limits import backward_fault, check_backward_size
from cost_models.kernels.put_together import launches_apart, put_together_bytes, put_together_launches
from cost_models.kernels.shape import AttentionShape
from cost_models.kernels.workspace import attention_workspace_bytes

__all__ = [
    "ALL_THE_TIME",
    "AttentionShape",
    "AttentionTimes",
    "Handing",
    "attention_bytes",
    "attention_handing",
    "attention_launches",
    "attention_workspace_bytes",
    "backward_fault",
    "check_backward_size",
    "choose_kernel",
    "estimate_around_s",
    "estimate_attention_s",
    "estimate_before_s",
    "estimate_calls_s",
    "estimate_elementwise_s",
    "LEAST_WRITTEN_BYTES",
    "estimate_gemm_s",
    "estimate_stencil_s",
    "gathered_bytes",
    "gemm_handing",
    "launches_apart",
    "launches_of",
    "merged_rows",
    "put_together_bytes",
    "put_together_launches",
    "missed_share",
    "split_call",
]

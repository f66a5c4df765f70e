"""Attention and memory-bound kernels that the executors run and the microbenchmarks time.

Interface: :func:`build_attention_kernel` (names in :data:`KERNEL_NAMES`), which gives an
`validators.executors.local.AttentionKernel`; :func:`why_unavailable`; and the fused memory-bound kernels in `fused`.

| name | what runs | takes |
|---|---|---|
| flash2 | flash-attention 2 as built into PyTorch | every window; D up to 256, D = Dv (V is padded) |
| flash3, flash4 | the same, with an installed flash-attention 3 or 4 behind it | as flash2; 4: no window backward |
| cudnn | cuDNN's fused attention through PyTorch | full and causal |
| flex | FlexAttention, compiled | every window |
| triton | ours: bands from a table, running (o, lse), precomputed delta | every window |
| cpu | PyTorch's flash attention for CPUs | every window; fp32 and bf16 |
| dense | every score materialised | every window |
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

from traces.errors import InputError

if TYPE_CHECKING:
    from validators.executors.local import AttentionKernel

_CLASSES = {
    "flash2": ("flash", "Flash2Kernel"),
    "flash3": ("flash", "Flash3Kernel"),
    "flash4": ("flash", "Flash4Kernel"),
    "cudnn": ("cudnn", "CudnnKernel"),
    "flex": ("flex", "FlexKernel"),
    "triton": ("triton_kernel", "TritonKernel"),
    "cpu": ("cpu", "CpuKernel"),
    "dense": ("dense", "DenseKernel"),
}

KERNEL_NAMES = tuple(_CLASSES)
"""Attention kernels by the names of the contract, and two for CPUs."""

_DEVICES = {"flash2": "cuda", "flash3": "cuda", "flash4": "cuda", "cudnn": "cuda", "flex": "cuda", "cpu": "cpu"}


def build_attention_kernel(name: str) -> AttentionKernel:
    """An attention kernel by name.

    Raises
    ------
    InputError
        Where there is no such kernel, or it cannot run here.
    """
    reason = why_unavailable(name)
    if reason:
        able = [each for each in KERNEL_NAMES if not why_unavailable(each)]
        raise InputError(f"kernel {name} cannot run here", got=reason, expected="one of " + ", ".join(able))
    module, cls = _CLASSES[name]
    return getattr(importlib.import_module(f"validators.kernels.{module}"), cls)()


def why_unavailable(name: str) -> str | None:
    """Why a kernel cannot run on this machine, None if it can."""
    import torch

    if name not in _CLASSES:
        raise InputError("unknown kernel", got=repr(name), expected="one of " + ", ".join(KERNEL_NAMES))
    if _DEVICES.get(name) == "cuda" and not torch.cuda.is_available():
        return "no CUDA device"
    module = {"flash3": "flash_attn_interface", "flash4": "flash_attn.cute", "triton": "triton"}.get(name)
    return None if module is None or _has_module(module) else f"module {module} is not installed"


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False

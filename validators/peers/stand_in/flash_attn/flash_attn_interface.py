"""The functions that ring-flash-attn and yunchang take from flash-attn, with the parameters that they inspect.

Backward writes into the gradients that it is given, as flash-attn does; PyTorch's kernels return their own, so that
each call copies dq, dk and dv once more than the real package would.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor

from cost_models.masks import KernelCall, Segment
from validators.executors.local import AttentionKernel
from validators.kernels import build_attention_kernel


def _flash_attn_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size_left: int = -1,
    window_size_right: int = -1,
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    return_softmax: bool = False,
) -> tuple[Tensor, Tensor, None, None]:
    _check(q, dropout_p, softmax_scale, softcap, alibi_slopes)
    o, lse = _kernel(q.device.type).forward(q, k, v, _call(q, k, causal, window_size_left, window_size_right))
    return o, lse, None, None


def _flash_attn_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    softmax_lse: Tensor,
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size_left: int = -1,
    window_size_right: int = -1,
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    rng_state: Tensor | None = None,
) -> None:
    _check(q, dropout_p, softmax_scale, softcap, alibi_slopes)
    call = _call(q, k, causal, window_size_left, window_size_right)
    parts = _kernel(q.device.type).backward(q, k, v, dout, softmax_lse, out, call, delta=False)
    for target, part in zip((dq, dk, dv), parts, strict=True):
        target.copy_(part)


def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, causal: bool = False, **_: Any) -> Tensor:
    """Forward only, without a graph."""
    return _flash_attn_forward(q, k, v, causal=causal)[0]


def _flash_attn_varlen_forward(*arguments: Any, **options: Any) -> None:
    raise NotImplementedError("the stand-in has no variable lengths")


def _flash_attn_varlen_backward(*arguments: Any, **options: Any) -> None:
    raise NotImplementedError("the stand-in has no variable lengths")


@cache
def _kernel(device: str) -> AttentionKernel:
    return build_attention_kernel("flash2" if device == "cuda" else "cpu")


def _call(q: Tensor, k: Tensor, causal: bool, left: int, right: int) -> KernelCall:
    segment = Segment(0, q.shape[1], 0, k.shape[1])
    return KernelCall((segment,), None if left < 0 else left, 0 if causal else None if right < 0 else right)


def _check(q: Tensor, dropout_p: float, scale: float | None, softcap: float, alibi: Tensor | None) -> None:
    standard = scale is None or abs(scale * q.shape[-1] ** 0.5 - 1) < 1e-6
    if dropout_p or softcap or alibi is not None or not standard:
        raise NotImplementedError("the stand-in has no dropout, softcap, ALiBi or scale of its own")

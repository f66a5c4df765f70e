"""Memory-bound kernels of layers and of the optimizer.

On a GPU each is one Triton kernel (`triton_pointwise`), on a CPU the same formula in PyTorch. Results are written into
tensors that are given.

    rms_norm         y = x rstd g,   rstd = 1 / sqrt(mean x^2 + eps)
    rope             pairs (i, i + dims/2) of the last features, rotated by position rate_i
    swiglu           h = silu(gate) up
    cross_entropy    lse of a row's logits, and the logit of its label
    adamw            Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2, on fp32 master weights

Row statistics (rstd, lse) are [B, 1, T], token ids too; activations [B, T, heads, dim], contiguous.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import ModuleType

import torch
from torch import Tensor


def rms_norm(x: Tensor, gain: Tensor, y: Tensor, rstd: Tensor, epsilon: float) -> None:
    """Normalise the last dim of x [B, T, 1, C]."""
    if fused := _triton(x):
        fused.rms_norm(x, gain, y, rstd, epsilon)
        return
    factor = (x.square().mean(dim=-1, keepdim=True) + epsilon).rsqrt()
    y.copy_(x * factor * gain.view(-1))
    rstd.copy_(factor[..., 0].transpose(1, 2))


def rms_norm_dx(dy: Tensor, x: Tensor, gain: Tensor, rstd: Tensor, dx: Tensor) -> None:
    """Dx = rstd (dy g - x rstd^2 mean(dy g x))."""
    if fused := _triton(x):
        fused.rms_norm_dx(dy, x, gain, rstd, dx)
        return
    factor, scaled = _columns(rstd), dy * gain.view(-1)
    dx.copy_(factor * (scaled - x * factor.square() * (scaled * x).mean(dim=-1, keepdim=True)))


def rms_norm_dw(dy: Tensor, x: Tensor, rstd: Tensor) -> Tensor:
    """Sum over tokens of dy x rstd [C], in at least fp32."""
    if fused := _triton(x):
        return fused.rms_norm_dw(dy, x, rstd)  # type: ignore[no-any-return]
    return (dy * x * _columns(rstd)).sum(dim=(0, 1, 2))


def rope(x: Tensor, positions: Tensor, rates: Tensor, sign: int) -> None:
    """Rotate the last 2 n features of x [B, T, H, D] in place, by ``sign`` positions [T] times rates [n] (float64)."""
    if fused := _triton(x):
        fused.rope(x, positions, rates, sign)
        return
    turned = x[..., x.shape[-1] - 2 * len(rates) :]
    angle = positions.double()[:, None, None] * rates * sign
    cosine, sine = torch.cos(angle).to(x.dtype), torch.sin(angle).to(x.dtype)
    low, high = turned.clone().chunk(2, dim=-1)
    turned.copy_(torch.cat([low * cosine - high * sine, high * cosine + low * sine], dim=-1))


def swiglu(gate: Tensor, up: Tensor, h: Tensor) -> None:
    """H = silu(gate) up."""
    if fused := _triton(h):
        fused.swiglu(gate, up, h)
        return
    h.copy_(torch.nn.functional.silu(gate) * up)


def swiglu_backward(dh: Tensor, gate: Tensor, up: Tensor, dgate: Tensor, dup: Tensor) -> None:
    """Gradients of gate and up."""
    if fused := _triton(dh):
        fused.swiglu_backward(dh, gate, up, dgate, dup)
        return
    sigmoid = torch.sigmoid(gate)
    dgate.copy_(dh * up * sigmoid * (1 + gate * (1 - sigmoid)))
    dup.copy_(dh * gate * sigmoid)


def cross_entropy(logits: Tensor, labels: Tensor, lse: Tensor, target: Tensor, offset: int) -> None:
    """Log-sum-exp of logits [B, T, 1, V], whose first word is number ``offset``, and the label's logit or 0."""
    if fused := _triton(logits):
        fused.cross_entropy(logits, labels, lse, target, offset)
        return
    flat, ids = logits.flatten(2), labels[:, 0].long() - offset
    lse.copy_(torch.logsumexp(flat, dim=-1).unsqueeze(1))
    mine = (ids >= 0) & (ids < flat.shape[-1])
    found = flat.gather(-1, ids.clamp(0, flat.shape[-1] - 1).unsqueeze(-1))[..., 0]
    target.copy_((found * mine).unsqueeze(1))


def cross_entropy_backward(
    logits: Tensor, labels: Tensor, lse: Tensor, factors: Tensor, grad: Tensor, offset: int
) -> None:  # fmt: skip
    """(softmax - onehot) times a factor for each of as many equal runs of rows; ``grad`` may be the logits."""
    if fused := _triton(logits):
        fused.cross_entropy_backward(logits, labels, lse, factors, grad, offset)
        return
    ids, flat = labels[:, 0].long() - offset, torch.exp(logits.flatten(2) - lse.transpose(1, 2))
    mine = (ids >= 0) & (ids < flat.shape[-1])
    flat.scatter_add_(-1, ids.clamp(0, flat.shape[-1] - 1).unsqueeze(-1), -mine.to(flat.dtype).unsqueeze(-1))
    grad.copy_((flat * factors.view(-1, 1, 1).to(flat.dtype)).view_as(grad))


def adamw(
    grad: Tensor, m: Tensor, v: Tensor, master: Tensor, weight: Tensor, settings: Mapping[str, float]
) -> None:  # fmt: skip
    """Update moments and master weights in place, and the weights from them."""
    if fused := _triton(grad):
        fused.adamw(grad, m, v, master, weight, settings)
        return
    o, grad = settings, grad.reshape(m.shape)
    m.mul_(o["beta1"]).add_(grad, alpha=1 - o["beta1"])
    v.mul_(o["beta2"]).addcmul_(grad, grad, value=1 - o["beta2"])
    first, second = m / (1 - o["beta1"] ** o["step"]), v / (1 - o["beta2"] ** o["step"])
    master.mul_(1 - o["learning_rate"] * o["weight_decay"])
    master.sub_(first / (second.sqrt() + o["epsilon"]), alpha=o["learning_rate"])
    weight.copy_(master.view_as(weight))


def _triton(tensor: Tensor) -> ModuleType | None:
    """The fused kernels, for what they are made for: 16 and 32 bits on a GPU."""
    return _kernels() if tensor.is_cuda and tensor.dtype != torch.float64 else None


@cache
def _kernels() -> ModuleType:
    from validators.kernels import triton_pointwise

    return triton_pointwise


def _columns(rows: Tensor) -> Tensor:
    """[B, H, T] as [B, T, H, 1]."""
    return rows.transpose(1, 2).unsqueeze(-1)

"""The kernels of `pointwise` in Triton: each value is read once and written once, arithmetic in fp32.

Rows are contiguous: activations [rows, features], row statistics [rows].
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from validators.kernels.interpreter import tl, triton

BLOCK = 2048
"""Elements of a flat tile: 16 of each of 128 threads."""
WORDS = 4096
"""Logits of a row that a program has at once."""
ROWS, COLUMNS, PARTS = 32, 128, 128
"""Tile of a sum over rows, and into how many partial sums the rows go."""


@triton.jit
def _rms_norm(x, gain, y, rstd, features, epsilon, WIDTH: tl.constexpr):
    row, columns = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    inside = columns < features
    value = tl.load(x + row * features + columns, mask=inside, other=0.0).to(tl.float32)
    factor = 1.0 / tl.sqrt(tl.sum(value * value, axis=0) / features + epsilon)
    scaled = value * factor * tl.load(gain + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row * features + columns, scaled.to(y.dtype.element_ty), mask=inside)
    tl.store(rstd + row, factor)


@triton.jit
def _rms_norm_dx(dy, x, gain, rstd, dx, features, WIDTH: tl.constexpr):
    row, columns = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    inside, at = columns < features, row * features + columns
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    scaled = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
    scaled *= tl.load(gain + columns, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(rstd + row)
    mean = tl.sum(scaled * value, axis=0) / features
    tl.store(dx + at, (factor * (scaled - value * factor * factor * mean)).to(dx.dtype.element_ty), mask=inside)


@triton.jit
def _rms_norm_dw(dy, x, rstd, parts, n, features, step, TILE: tl.constexpr, WIDTH: tl.constexpr):
    columns = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    first, total = tl.program_id(1) * step, tl.zeros((WIDTH,), tl.float32)
    for start in range(0, step, TILE):
        rows = first + start + tl.arange(0, TILE)
        there = (rows < n) & (rows < first + step)
        inside = there[:, None] & (columns < features)[None, :]
        at = rows.to(tl.int64)[:, None] * features + columns[None, :]
        given = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32)
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        factor = tl.load(rstd + rows, mask=there, other=0.0)
        total += tl.sum(given * value * factor[:, None], axis=0)
    tl.store(parts + tl.program_id(1) * features + columns, total, mask=columns < features)


@triton.jit
def _rope(
    x, positions, rates, tokens, heads, dim, half, sign, HEADS: tl.constexpr, HALF: tl.constexpr
):  # fmt: skip
    token, batch = tl.program_id(0), tl.program_id(1)
    head, pair = tl.arange(0, HEADS), tl.arange(0, HALF)
    there = pair < half
    angle = tl.load(positions + token).to(tl.float64) * tl.load(rates + pair, mask=there, other=0.0)
    angle = (angle - tl.floor(angle / 6.283185307179586) * 6.283185307179586).to(tl.float32)
    cosine, sine = tl.cos(angle)[None, :], tl.sin(angle)[None, :] * sign
    inside = (head < heads)[:, None] & there[None, :]
    start = (batch.to(tl.int64) * tokens + token) * heads * dim + dim - 2 * half
    low_at = x + start + head[:, None] * dim + pair[None, :]
    low = tl.load(low_at, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(low_at + half, mask=inside, other=0.0).to(tl.float32)
    tl.store(low_at, (low * cosine - high * sine).to(x.dtype.element_ty), mask=inside)
    tl.store(low_at + half, (high * cosine + low * sine).to(x.dtype.element_ty), mask=inside)


@triton.jit
def _swiglu(gate, up, h, n, TILE: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = at < n
    a, b = tl.load(gate + at, mask=inside).to(tl.float32), tl.load(up + at, mask=inside).to(tl.float32)
    tl.store(h + at, (a / (1.0 + tl.exp(-a)) * b).to(h.dtype.element_ty), mask=inside)


@triton.jit
def _swiglu_backward(dh, gate, up, dgate, dup, n, TILE: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = at < n
    a, b = tl.load(gate + at, mask=inside).to(tl.float32), tl.load(up + at, mask=inside).to(tl.float32)
    given, sigmoid = tl.load(dh + at, mask=inside).to(tl.float32), 1.0 / (1.0 + tl.exp(-a))
    tl.store(dgate + at, (given * b * sigmoid * (1.0 + a * (1.0 - sigmoid))).to(dgate.dtype.element_ty), mask=inside)
    tl.store(dup + at, (given * a * sigmoid).to(dup.dtype.element_ty), mask=inside)


@triton.jit
def _cross_entropy(logits, labels, lse, target, words, offset, TILE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    largest, total = float("-inf"), 0.0
    for start in range(0, words, TILE):
        columns = start + tl.arange(0, TILE)
        value = tl.load(logits + row * words + columns, mask=columns < words, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(largest, tl.max(value, axis=0))
        total = total * tl.exp(largest - higher) + tl.sum(tl.exp(value - higher), axis=0)
        largest = higher
    tl.store(lse + row, largest + tl.log(total))
    label = tl.load(labels + row).to(tl.int64) - offset
    mine = (label >= 0) & (label < words)
    tl.store(target + row, tl.load(logits + row * words + label, mask=mine, other=0.0).to(tl.float32))


@triton.jit
def _cross_entropy_backward(logits, labels, lse, factors, grad, words, offset, tokens, TILE: tl.constexpr):
    row, columns = tl.program_id(0).to(tl.int64), tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside, at = columns < words, row * words + columns
    value = tl.load(logits + at, mask=inside, other=float("-inf")).to(tl.float32)
    share = tl.exp(value - tl.load(lse + row).to(tl.float32))
    label = tl.load(labels + row).to(tl.int64) - offset
    share = (share - tl.where(columns == label, 1.0, 0.0)) * tl.load(factors + row // tokens).to(tl.float32)
    tl.store(grad + at, share.to(grad.dtype.element_ty), mask=inside)


@triton.jit
def _adamw(
    grad, m, v, master, weight, n, rate, keep, beta1, beta2, first_scale, second_scale, epsilon, TILE: tl.constexpr
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = at < n
    g = tl.load(grad + at, mask=inside).to(tl.float32)
    first = beta1 * tl.load(m + at, mask=inside) + (1.0 - beta1) * g
    second = beta2 * tl.load(v + at, mask=inside) + (1.0 - beta2) * g * g
    step = first * first_scale / (tl.sqrt(second * second_scale) + epsilon)
    updated = tl.load(master + at, mask=inside) * keep - rate * step
    tl.store(m + at, first, mask=inside)
    tl.store(v + at, second, mask=inside)
    tl.store(master + at, updated, mask=inside)
    tl.store(weight + at, updated.to(weight.dtype.element_ty), mask=inside)


def rms_norm(x: Tensor, gain: Tensor, y: Tensor, rstd: Tensor, epsilon: float) -> None:
    """See `pointwise.rms_norm`."""
    features = x.shape[-1]
    _rms_norm[(x.numel() // features,)](x, gain, y, rstd, features, epsilon, **_row(features))


def rms_norm_dx(dy: Tensor, x: Tensor, gain: Tensor, rstd: Tensor, dx: Tensor) -> None:
    """See `pointwise.rms_norm_dx`."""
    features = x.shape[-1]
    _rms_norm_dx[(x.numel() // features,)](dy, x, gain, rstd, dx, features, **_row(features))


def rms_norm_dw(dy: Tensor, x: Tensor, rstd: Tensor) -> Tensor:
    """See `pointwise.rms_norm_dw`."""
    features, n = x.shape[-1], x.numel() // x.shape[-1]
    step = triton.cdiv(triton.cdiv(n, PARTS), ROWS) * ROWS
    count = triton.cdiv(n, step)
    parts = torch.empty(count, features, dtype=torch.float32, device=x.device)
    grid = triton.cdiv(features, COLUMNS), count
    _rms_norm_dw[grid](dy, x, rstd, parts, n, features, step, TILE=ROWS, WIDTH=COLUMNS)
    return parts.sum(dim=0)


def rope(x: Tensor, positions: Tensor, rates: Tensor, sign: int) -> None:
    """See `pointwise.rope`."""
    batch, tokens, heads, dim = x.shape
    wide = {"HEADS": triton.next_power_of_2(heads), "HALF": triton.next_power_of_2(len(rates))}
    _rope[(tokens, batch)](x, positions, rates, tokens, heads, dim, len(rates), float(sign), **wide)


def swiglu(gate: Tensor, up: Tensor, h: Tensor) -> None:
    """See `pointwise.swiglu`."""
    n = h.numel()
    _swiglu[(triton.cdiv(n, BLOCK),)](gate, up, h, n, TILE=BLOCK)


def swiglu_backward(dh: Tensor, gate: Tensor, up: Tensor, dgate: Tensor, dup: Tensor) -> None:
    """See `pointwise.swiglu_backward`."""
    n = dh.numel()
    _swiglu_backward[(triton.cdiv(n, BLOCK),)](dh, gate, up, dgate, dup, n, TILE=BLOCK)


def cross_entropy(logits: Tensor, labels: Tensor, lse: Tensor, target: Tensor, offset: int) -> None:
    """See `pointwise.cross_entropy`."""
    words = logits.shape[-1]
    _cross_entropy[(logits.numel() // words,)](logits, labels, lse, target, words, offset, TILE=WORDS, num_warps=8)


def cross_entropy_backward(
    logits: Tensor, labels: Tensor, lse: Tensor, factors: Tensor, grad: Tensor, offset: int
) -> None:  # fmt: skip
    """See `pointwise.cross_entropy_backward`."""
    words = logits.shape[-1]
    rows = logits.numel() // words
    grid = rows, triton.cdiv(words, WORDS)
    _cross_entropy_backward[grid](
        logits, labels, lse, factors, grad, words, offset, rows // len(factors), TILE=WORDS, num_warps=8
    )


def adamw(
    grad: Tensor, m: Tensor, v: Tensor, master: Tensor, weight: Tensor, settings: Mapping[str, float]
) -> None:  # fmt: skip
    """See `pointwise.adamw`."""
    o, n = settings, grad.numel()
    scales = 1 / (1 - o["beta1"] ** o["step"]), 1 / (1 - o["beta2"] ** o["step"])
    keep = 1 - o["learning_rate"] * o["weight_decay"]
    _adamw[(triton.cdiv(n, BLOCK),)](
        grad, m, v, master, weight, n, o["learning_rate"], keep, o["beta1"], o["beta2"], *scales, o["epsilon"],
        TILE=BLOCK,
    )  # fmt: skip


def _row(features: int) -> dict[str, int]:
    """A row in one program, 16 bytes of bf16 or more for each thread."""
    width = triton.next_power_of_2(features)
    return {"WIDTH": width, "num_warps": min(16, max(1, width // 256))}

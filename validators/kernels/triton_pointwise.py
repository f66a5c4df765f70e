"""The kernels of `pointwise` in Triton: each value is read once and written once, arithmetic in fp32.

Rows are contiguous: activations [rows, features], row statistics [rows].
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

from validators.kernels.interpreter import tl, triton
from validators.kernels.launching import Launcher

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


_LAUNCHES = {
    name: Launcher(kernel)
    for name, kernel in {
        "rms_norm": _rms_norm, "rms_norm_dx": _rms_norm_dx, "rms_norm_dw": _rms_norm_dw, "rope": _rope,
        "swiglu": _swiglu, "swiglu_backward": _swiglu_backward, "cross_entropy": _cross_entropy,
        "cross_entropy_backward": _cross_entropy_backward, "adamw": _adamw,
    }.items()
}  # fmt: skip


def rms_norm(x: Tensor, gain: Tensor, y: Tensor, rstd: Tensor, epsilon: float) -> None:
    """See `pointwise.rms_norm`."""
    features = x.shape[-1]
    width, warps = _row(features)
    grid = (x.numel() // features,)
    _LAUNCHES["rms_norm"](grid, (x, gain, y, rstd), (features, epsilon), (width,), num_warps=warps)


def rms_norm_dx(dy: Tensor, x: Tensor, gain: Tensor, rstd: Tensor, dx: Tensor) -> None:
    """See `pointwise.rms_norm_dx`."""
    features = x.shape[-1]
    width, warps = _row(features)
    grid = (x.numel() // features,)
    _LAUNCHES["rms_norm_dx"](grid, (dy, x, gain, rstd, dx), (features,), (width,), num_warps=warps)


def rms_norm_dw(dy: Tensor, x: Tensor, rstd: Tensor) -> Tensor:
    """See `pointwise.rms_norm_dw`."""
    features = x.shape[-1]
    n = x.numel() // features
    step = _tiles(_tiles(n, PARTS), ROWS) * ROWS
    count = _tiles(n, step)
    parts = torch.empty(count, features, dtype=torch.float32, device=x.device)
    grid = _tiles(features, COLUMNS), count
    _LAUNCHES["rms_norm_dw"](grid, (dy, x, rstd, parts), (n, features, step), (ROWS, COLUMNS))
    return parts.sum(dim=0)


def rope(x: Tensor, positions: Tensor, rates: Tensor, sign: int) -> None:
    """See `pointwise.rope`."""
    batch, tokens, heads, dim = x.shape
    half = len(rates)
    numbers, constants = (tokens, heads, dim, half, float(sign)), (_power_of_2(heads), _power_of_2(half))
    _LAUNCHES["rope"]((tokens, batch), (x, positions, rates), numbers, constants)


def swiglu(gate: Tensor, up: Tensor, h: Tensor) -> None:
    """See `pointwise.swiglu`."""
    n = h.numel()
    _LAUNCHES["swiglu"]((_tiles(n, BLOCK),), (gate, up, h), (n,), (BLOCK,))


def swiglu_backward(dh: Tensor, gate: Tensor, up: Tensor, dgate: Tensor, dup: Tensor) -> None:
    """See `pointwise.swiglu_backward`."""
    n = dh.numel()
    _LAUNCHES["swiglu_backward"]((_tiles(n, BLOCK),), (dh, gate, up, dgate, dup), (n,), (BLOCK,))


def cross_entropy(logits: Tensor, labels: Tensor, lse: Tensor, target: Tensor, offset: int) -> None:
    """See `pointwise.cross_entropy`."""
    words = logits.shape[-1]
    grid = (logits.numel() // words,)
    _LAUNCHES["cross_entropy"](grid, (logits, labels, lse, target), (words, offset), (WORDS,), num_warps=8)


def cross_entropy_backward(
    logits: Tensor, labels: Tensor, lse: Tensor, factors: Tensor, grad: Tensor, offset: int
) -> None:  # fmt: skip
    """See `pointwise.cross_entropy_backward`."""
    words = logits.shape[-1]
    rows = logits.numel() // words
    _LAUNCHES["cross_entropy_backward"](
        (rows, _tiles(words, WORDS)), (logits, labels, lse, factors, grad), (words, offset, rows // len(factors)),
        (WORDS,), num_warps=8,
    )  # fmt: skip


def adamw(
    grad: Tensor, m: Tensor, v: Tensor, master: Tensor, weight: Tensor, settings: Mapping[str, float]
) -> None:  # fmt: skip
    """See `pointwise.adamw`."""
    o, n = settings, grad.numel()
    scales = 1 / (1 - o["beta1"] ** o["step"]), 1 / (1 - o["beta2"] ** o["step"])
    keep = 1 - o["learning_rate"] * o["weight_decay"]
    numbers = n, o["learning_rate"], keep, o["beta1"], o["beta2"], *scales, o["epsilon"]
    _LAUNCHES["adamw"]((_tiles(n, BLOCK),), (grad, m, v, master, weight), numbers, (BLOCK,))


@cache
def _row(features: int) -> tuple[int, int]:
    """Width of a row in one program, and its warps: 16 bytes of bf16 or more for each thread."""
    width = _power_of_2(features)
    return width, min(16, max(1, width // 256))


@cache
def _power_of_2(n: int) -> int:
    return triton.next_power_of_2(n)  # type: ignore[no-any-return]


def _tiles(n: int, size: int) -> int:
    """How many of a size hold n."""
    return -(-n // size)

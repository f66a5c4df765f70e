"""The kernels of `fused` in Triton: one program per tile of rows of one head and batch row, each value moved once.

Tensors [B, n, H, D] may have any strides but a last one of 1; row statistics [B, H, n] any but a last one of 1.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from validators.kernels.interpreter import tl, triton
from validators.kernels.launching import Launcher

ROWS = 16
"""Rows of a tile: 16 x 128 values keep every thread of 4 warps busy with 16-byte accesses."""


@triton.jit
def _tile(tensor, batch, head, rows, dims, stride_b, stride_n, stride_h):
    """Pointers to [rows, dims] of one head."""
    start = tensor + batch.to(tl.int64) * stride_b + head.to(tl.int64) * stride_h
    return start + rows[:, None].to(tl.int64) * stride_n + dims[None, :]


@triton.jit
def _merge(
    o, lse, part, part_lse, heads, n, o_b, o_n, o_h, p_b, p_n, p_h, l_b, l_h, pl_b, pl_h,
    D: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    rows, dims = tl.program_id(0) * TILE + tl.arange(0, TILE), tl.arange(0, WIDTH)
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    there = rows < n
    inside = there[:, None] & (dims < D)[None, :]
    lse_at, part_lse_at = lse + batch * l_b + head * l_h + rows, part_lse + batch * pl_b + head * pl_h + rows
    mine = tl.load(lse_at, mask=there, other=0.0).to(tl.float32)
    other = tl.load(part_lse_at, mask=there, other=0.0).to(tl.float32)
    high, low = tl.maximum(mine, other), tl.minimum(mine, other)
    ratio = tl.exp(low - tl.where(high == float("-inf"), 0.0, high))
    weight = tl.where(other >= mine, 1.0, ratio) / (1.0 + ratio)
    weight = tl.where(other == float("-inf"), 0.0, weight)
    o_at, p_at = _tile(o, batch, head, rows, dims, o_b, o_n, o_h), _tile(part, batch, head, rows, dims, p_b, p_n, p_h)
    running = tl.load(o_at, mask=inside, other=0.0).to(tl.float32)
    partial = tl.load(p_at, mask=inside, other=0.0).to(tl.float32)
    merged = running - weight[:, None] * (running - partial)
    tl.store(o_at, merged.to(o.dtype.element_ty), mask=inside)
    tl.store(lse_at, (high + tl.log(1.0 + ratio)).to(lse.dtype.element_ty), mask=there)


@triton.jit
def _row_dot(
    do, o, delta, heads, n, d_b, d_n, d_h, o_b, o_n, o_h, r_b, r_h,
    D: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    rows, dims = tl.program_id(0) * TILE + tl.arange(0, TILE), tl.arange(0, WIDTH)
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    there = rows < n
    inside = there[:, None] & (dims < D)[None, :]
    first = tl.load(_tile(do, batch, head, rows, dims, d_b, d_n, d_h), mask=inside, other=0.0).to(tl.float32)
    second = tl.load(_tile(o, batch, head, rows, dims, o_b, o_n, o_h), mask=inside, other=0.0).to(tl.float32)
    tl.store(delta + batch * r_b + head * r_h + rows, tl.sum(first * second, axis=1), mask=there)


@triton.jit
def _output_with_delta(
    do, delta, o, heads, n, d_b, d_n, d_h, o_b, o_n, o_h, r_b, r_h,
    D: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    rows, dims = tl.program_id(0) * TILE + tl.arange(0, TILE), tl.arange(0, WIDTH)
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    there = rows < n
    inside = there[:, None] & (dims < D)[None, :]
    given = tl.load(_tile(do, batch, head, rows, dims, d_b, d_n, d_h), mask=inside, other=0.0).to(tl.float32)
    wanted = tl.load(delta + batch * r_b + head * r_h + rows, mask=there, other=0.0).to(tl.float32)
    largest = tl.max(tl.abs(given), axis=1)
    largest = tl.where(largest == 0.0, 1.0, largest)
    unit = given / largest[:, None]
    square = tl.sum(unit * unit, axis=1)
    factor = wanted / largest / tl.where(square == 0.0, 1.0, square)
    at = _tile(o, batch, head, rows, dims, o_b, o_n, o_h)
    tl.store(at, (factor[:, None] * unit).to(o.dtype.element_ty), mask=inside)


@triton.jit
def _move(
    target, source, rows, n_1, n_2, n_3, t_0, t_1, t_2, t_3, s_0, s_1, s_2, s_3,
    D: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    row, dims = (tl.program_id(0) * TILE + tl.arange(0, TILE)).to(tl.int64), tl.arange(0, WIDTH)
    inside = (row < rows)[:, None] & (dims < D)[None, :]
    last, rest = row % n_3, row // n_3
    third, rest = rest % n_2, rest // n_2
    second, first = rest % n_1, rest // n_1
    from_at = source + (first * s_0 + second * s_1 + third * s_2 + last * s_3)[:, None] + dims[None, :]
    to_at = target + (first * t_0 + second * t_1 + third * t_2 + last * t_3)[:, None] + dims[None, :]
    values = tl.load(from_at, mask=inside, other=0.0)
    if ADD:
        values = values.to(tl.float32) + tl.load(to_at, mask=inside, other=0.0).to(tl.float32)
    tl.store(to_at, values.to(target.dtype.element_ty), mask=inside)


@triton.jit
def _gather(
    target, source, index, rows, batch, count, heads, held,
    D: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    row, dims = (tl.program_id(0) * TILE + tl.arange(0, TILE)).to(tl.int64), tl.arange(0, WIDTH)
    there = row < rows
    head, rest = row % heads, row // heads
    token, rest = rest % count, rest // count
    sequence, group = rest % batch, rest // batch
    found = tl.load(index + group * count + token, mask=there, other=-1)
    known = tl.where(found < 0, 0, found)
    start = ((known // held * batch + sequence) * held + known % held) * heads + head
    inside = there[:, None] & (dims < D)[None, :]
    values = tl.load(source + start[:, None] * D + dims[None, :], mask=inside & (found >= 0)[:, None], other=0.0)
    tl.store(target + row[:, None] * D + dims[None, :], values, mask=inside)


_MERGE, _DOT, _DELTA, _MOVED = Launcher(_merge), Launcher(_row_dot), Launcher(_output_with_delta), Launcher(_move)
_GATHERED = Launcher(_gather)


def gather_rows(target: Tensor, source: Tensor, rows: Tensor) -> None:
    """See `fused.gather_rows`."""
    assert target.is_contiguous() and source.is_contiguous() and rows.dtype == torch.int64
    _, batch, count, heads, dim = target.shape
    lines = target.numel() // dim
    if not lines:
        return
    sizes = lines, batch, count, heads, source.shape[2]
    _GATHERED((-(-lines // ROWS),), (target, source, rows), sizes, (dim, _width(dim), ROWS))


def move(target: Tensor, source: Tensor, *, add: bool) -> None:
    """See `fused.copy_into` and `fused.add_into`; up to five dims, the last one contiguous in both."""
    shape, missing = target.shape, (0,) * (5 - target.dim())
    sizes = (*[1 for _ in missing], *shape[:-1])
    rows, dim = target.numel() // shape[-1], shape[-1]
    numbers = rows, *sizes[1:], *missing, *target.stride()[:-1], *missing, *source.stride()[:-1]
    _MOVED((-(-rows // ROWS),), (target, source), numbers, (dim, _width(dim), ROWS, add))


def merge_into(o: Tensor, lse: Tensor, part: Tensor, part_lse: Tensor) -> None:
    """See `fused.merge_into`."""
    strides = (*o.stride()[:3], *part.stride()[:3], *lse.stride()[:2], *part_lse.stride()[:2])
    _launch(_MERGE, o, (o, lse, part, part_lse), strides)


def row_dot(do: Tensor, o: Tensor, delta: Tensor) -> None:
    """See `fused.row_dot`."""
    _launch(_DOT, do, (do, o, delta), (*do.stride()[:3], *o.stride()[:3], *delta.stride()[:2]))


def output_with_delta(do: Tensor, delta: Tensor) -> Tensor:
    """See `fused.output_with_delta`."""
    o, delta = torch.empty(do.shape, dtype=do.dtype, device=do.device), delta.contiguous()
    _launch(_DELTA, do, (do, delta, o), (*do.stride()[:3], *o.stride()[:3], *delta.stride()[:2]))
    return o


def _launch(kernel: Launcher, like: Tensor, tensors: tuple[Tensor, ...], strides: tuple[int, ...]) -> None:
    batch, n, heads, dim = like.shape
    if not like.numel():
        return
    for tensor in tensors:
        assert tensor.stride(-1) == 1 or tensor.shape[-1] == 1, "the last dim is contiguous"
    kernel((-(-n // ROWS), batch * heads), tensors, (heads, n, *strides), (dim, _width(dim), ROWS))


@cache
def _width(dim: int) -> int:
    return max(triton.next_power_of_2(dim), 2)

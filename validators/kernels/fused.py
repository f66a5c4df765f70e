r"""Memory-bound kernels in one pass: copies and sums, the LSE merge, row sums, and an output that has a given delta.

On a GPU each is one Triton kernel (`triton_fused`); on a CPU, the same formulas in PyTorch.

    merge     o' = o - sigmoid(lse_i - lse) (o - o_i),   lse' = log(exp(lse) + exp(lse_i))
    row_dot   delta = rowsum(dO O)
    output    O' = delta dO / |dO|^2,   for which rowsum(dO O') = delta

PyTorch's own copies reach 1.8 TB/s on an H100 where a dtype widens and 1.5 TB/s where dims are permuted, of the
3.0 TB/s of plain ones; ours moves rows of contiguous values, whatever the dtypes and the strides of the other dims.

Flash kernels recompute delta from O. A schedule that circulates delta instead of O (Burst) gives them O': as dO is the
same, so are all gradients, and no backward with an argument for delta is needed. O' is computed from dO / max |dO|, so
that small gradients do not underflow; its products with dO have one sign, so that its rounding to the dtype of dO
changes delta less than rounding the real O does.
Source of the merge: ring-flash-attention PR 34, which cannot overflow.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from validators.dense import row_dot as dense_row_dot

LEAST_ROW = 16
"""Contiguous values from which on rows are moved by our kernel."""


def copy_into(target: Tensor, source: Tensor) -> None:
    """Target <- source, of one shape, whatever their dtypes and strides."""
    if _is_for_us(target, source):
        _kernels().move(target, source, add=False)
        return
    target.copy_(source)


def add_into(total: Tensor, part: Tensor) -> None:
    """Total <- total + part, of one shape, added in at least fp32."""
    if _is_for_us(total, part):
        _kernels().move(total, part, add=True)
        return
    total += part


def gather_rows(target: Tensor, source: Tensor, rows: Tensor) -> None:
    """Fill ``target`` with rows of ``source``, zero where the number is negative.

    Parameters
    ----------
    target : [G, B, T, H, D]. source : [P, B, n, H, D], whose rows are numbered over P and n.
    rows : int64 [G T], over G and T.
    """
    if not target.numel():
        return
    if target.is_cuda and target.dtype != torch.float64 and target.is_contiguous() and source.is_contiguous():
        _kernels().gather_rows(target, source, rows)
        return
    groups, batch, count = target.shape[:3]
    result = source.transpose(0, 1).flatten(1, 2).index_select(1, rows.clamp(min=0))
    result[:, rows < 0] = 0
    target.copy_(result.view(batch, groups, count, *target.shape[3:]).transpose(0, 1))


def _is_for_us(target: Tensor, source: Tensor) -> bool:
    """Whether PyTorch's kernels are not as quick: neither the same dtype in one run of memory, nor odd rows."""
    if not target.is_cuda or target.dtype == torch.float64:
        return False
    if target.dtype == source.dtype and target.is_contiguous() and source.is_contiguous():
        return False
    shape = target.shape
    if not target.numel() or len(shape) > 5 or shape[-1] < LEAST_ROW or shape != source.shape:
        return False
    return target.stride(-1) == source.stride(-1) == 1


@cache
def _kernels() -> ModuleType:
    from validators.kernels import triton_fused

    return triton_fused


def merge_into(o: Tensor, lse: Tensor, part: Tensor, part_lse: Tensor) -> None:
    """Merge a partial result into a running one, in place.

    Parameters
    ----------
    o, part : [B, n, H, D], of any strides; the running one usually fp32.
    lse, part_lse : [B, H, n]; rows that have seen no key have -inf.
    """
    if o.is_cuda:
        _kernels().merge_into(o, lse, part, part_lse)
        return
    weight = torch.sigmoid(part_lse - lse).transpose(1, 2).unsqueeze(-1)
    weight = torch.where((part_lse == -torch.inf).transpose(1, 2).unsqueeze(-1), torch.zeros_like(weight), weight)
    o -= weight * (o - part)
    torch.logaddexp(lse, part_lse, out=lse)


def row_dot(do: Tensor, o: Tensor, delta: Tensor) -> None:
    """Delta [B, H, n] <- rowsum(dO O) of [B, n, H, D] tensors."""
    if do.is_cuda:
        _kernels().row_dot(do, o, delta)
        return
    delta.copy_(dense_row_dot(do.to(delta.dtype), o.to(delta.dtype)))


def output_with_delta(do: Tensor, delta: Tensor) -> Tensor:
    """O' [B, n, H, D] with rowsum(dO O') = delta [B, H, n]; zero in rows where dO is."""
    if do.is_cuda:
        return _kernels().output_with_delta(do, delta)  # type: ignore[no-any-return]
    wide = do.to(torch.promote_types(do.dtype, torch.float32))
    largest = wide.abs().amax(dim=-1, keepdim=True)
    largest = largest.masked_fill(largest == 0, 1.0)
    unit = wide / largest
    square = unit.square().sum(dim=-1, keepdim=True)
    rows = delta.transpose(1, 2).unsqueeze(-1)
    return (rows / largest * unit / square.masked_fill(square == 0, 1.0)).to(do.dtype)

"""Attention of one rank, and merges of partial results.

    merge of (o, lse) with a partial (o_i, lse_i):    o -= sigmoid(lse_i - lse) (o - o_i),   lse = log(e^lse + e^lse_i)

A launch has one segment, or several where the kernel takes them at once (packed documents: one variable-length call).
What kernels return is kept as pieces of its buffer. Only where several launches of one operation share rows (or, in
backward, columns) are they put together, in at least fp32: by log-sum-exp, as a row that several steps compute is.
Source: Dao 2023 (arXiv 2307.08691) section 2; the merge as in ring-flash-attention, pull request 34.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from cost_models.kernels import split_call
from cost_models.kernels.put_together import join_slices
from cost_models.masks import KernelCall
from simulator.program.operations import Attention, Operation
from validators.executors.local import (
    AttentionKernel,
    LocalOperations,
    SegmentsKernel,
    Slices,
    covered_slices,
    gaps,
)
from validators.executors.packing import readable
from validators.executors.store import Piece
from validators.kernels import fused
from validators.kernels.fused import add_into, merge_into


def attention_forward(local: LocalOperations, operation: Operation) -> None:
    """o, lse <- the launches of this rank."""
    if "into" in operation.options:
        _continue(local, operation)
        return
    _launch(local, operation, *local.reads(operation))


def attention_cached(local: LocalOperations, operation: Operation) -> None:
    """The same, of rows as a cache holds them."""
    q, *cached = local.reads(operation)
    rows = [readable(each, buffer, q.dtype) for each, buffer in zip(cached, operation.reads[1:], strict=True)]
    values = rows[1] if len(rows) == 2 else rows[0][..., : operation.writes[0].dim]
    _launch(local, operation, q, rows[0], values)


def _launch(local: LocalOperations, operation: Operation, q: Tensor, k: Tensor, v: Tensor) -> None:
    o: list[Piece] = []
    lse: list[Piece] = []
    for launch in _launches(local, operation):
        for pieces, part in zip((o, lse), _forward(local.kernel, launch, q, k, v), strict=True):
            pieces += part
    if overlap(o):
        o, lse = _merge_shared_rows(o, lse)
    local.store.adopt(operation.writes[0], o)
    local.store.adopt(operation.writes[1], lse)


def _continue(local: LocalOperations, operation: Operation) -> None:
    """A running result is merged with that of each launch."""
    (q, k, v), (o, lse) = local.reads(operation), local.writes(operation)
    for launch in _launches(local, operation):
        for part, part_lse in zip(*_forward(local.kernel, launch, q, k, v), strict=True):
            rows = slice(part.start, part.stop)
            local.merge(o[:, rows], lse[:, :, rows], part.tensor, part_lse.tensor)


def attention_backward(local: LocalOperations, operation: Operation) -> None:
    """dq, dk, dv <- the launches of this rank."""
    q, k, v, do, lse, row = local.reads(operation)
    delta = typing.cast(Attention, operation.work).precomputed_delta
    gradients: tuple[list[Piece], list[Piece], list[Piece]] = ([], [], [])
    for launch in _launches(local, operation):
        for pieces, part in zip(gradients, _backward(local.kernel, launch, q, k, v, do, lse, row, delta), strict=True):
            pieces += part
    for buffer, pieces in zip(operation.writes, gradients, strict=True):
        local.store.adopt(buffer, _add_shared_rows(pieces) if overlap(pieces) else pieces)


def _launches(local: LocalOperations, operation: Operation) -> Sequence[KernelCall]:
    """What the kernel takes at once of the calls of this rank."""
    found = local.launches.get(operation.id)
    if found is None:
        found = local.launches[operation.id] = list(_split_calls(local, operation))
    return found


def _split_calls(local: LocalOperations, operation: Operation) -> Iterator[KernelCall]:
    kernel = local.kernel
    together = isinstance(kernel, SegmentsKernel)
    for call in local.lowering(operation).calls:
        for launch in split_call(call, varlen=together):
            if len(launch.segments) == 1 or (isinstance(kernel, SegmentsKernel) and kernel.takes_segments(launch)):
                yield launch
            else:
                yield from split_call(launch, varlen=False)


def _forward(kernel: AttentionKernel, launch: KernelCall, q: Tensor, k: Tensor, v: Tensor) -> list[list[Piece]]:
    """Pieces of o, and of lse."""
    if len(launch.segments) > 1:
        o, lse = typing.cast(SegmentsKernel, kernel).forward_segments(q, k, v, launch)
        covered = covered_slices([launch], "q")
        return [_cut(o, 1, covered), _cut(lse, 2, covered)]
    (s,) = launch.segments
    rows, columns = (s.q_start, s.q_stop), (s.k_start, s.k_stop)
    parts = kernel.forward(_only(q, rows), _only(k, columns), _only(v, columns), launch)
    return [[Piece(s.q_start, s.q_stop, part)] for part in parts]


def _backward(
    kernel: AttentionKernel, launch: KernelCall, q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor,
    row: Tensor, delta: bool,
) -> list[list[Piece]]:  # fmt: skip
    """Pieces of dq, of dk, and of dv."""
    if len(launch.segments) > 1:
        several = typing.cast(SegmentsKernel, kernel)
        gradients = several.backward_segments(q, k, v, do, lse, row, launch, delta=delta)
        return [
            _cut(part, 1, covered_slices([launch], side)) for part, side in zip(gradients, "qkk", strict=True)
        ]  # fmt: skip
    (s,) = launch.segments
    rows, columns = (s.q_start, s.q_stop), (s.k_start, s.k_stop)
    dq, dk, dv = kernel.backward(
        _only(q, rows), _only(k, columns), _only(v, columns), _only(do, rows), _only(lse, rows, 2),
        _only(row, rows, 2 if delta else 1), launch, delta=delta,
    )  # fmt: skip
    return [[Piece(*rows, dq)], [Piece(*columns, dk)], [Piece(*columns, dv)]]


def _only(tensor: Tensor, rows: tuple[int, int], dim: int = 1) -> Tensor:
    """Some rows; the tensor itself if they are all."""
    start, stop = rows
    return tensor if stop - start == tensor.shape[dim] else tensor.narrow(dim, start, stop - start)


def _cut(tensor: Tensor, dim: int, slices: Slices) -> list[Piece]:
    return [Piece(start, stop, tensor.narrow(dim, start, stop - start)) for start, stop in slices]


def merge(local: LocalOperations, operation: Operation) -> None:
    """Running (o, lse) <- LSE-weighted sum, on the rows covered."""
    o, lse = local.writes(operation)
    covered = local.covered(operation) or []
    o_pieces, lse_pieces = [local.store.pieces(buffer, covered) for buffer in operation.reads]
    for part, part_lse in zip(o_pieces, lse_pieces, strict=True):
        rows = slice(part.start, part.stop)
        local.merge(o[:, rows], lse[:, :, rows], part.tensor, part_lse.tensor)


def clear(local: LocalOperations, operation: Operation) -> None:
    """O = 0, lse = -inf outside the rows covered."""
    o, lse = local.writes(operation)
    for start, stop in gaps(local.covered(operation) or [], o.shape[1]):
        o[:, start:stop] = 0
        lse[:, :, start:stop] = -torch.inf


def combine(local: LocalOperations, operation: Operation) -> None:
    """LSE-weighted sum of all ranks' partial results."""
    (o_all, lse_all), (o, lse) = local.reads(operation), local.writes(operation)
    batch = o.shape[0]
    o_all, lse_all = o_all.reshape(-1, batch, *o.shape[1:]), lse_all.reshape(-1, batch, *lse.shape[1:])
    torch.logsumexp(lse_all, dim=0, out=lse)
    weight = torch.exp(lse_all - lse).transpose(2, 3).unsqueeze(-1)
    o.copy_((weight * o_all).sum(dim=0))


def row_dot(local: LocalOperations, operation: Operation) -> None:
    """Delta = rowsum(dO O)."""
    (do, o), (delta,) = local.reads(operation), local.writes(operation)
    fused.row_dot(do, o, delta)


def overlap(pieces: Sequence[Piece]) -> bool:
    """Whether two pieces share a row."""
    if len(pieces) < 2:
        return False
    ordered = sorted((each.start, each.stop) for each in pieces)
    return any(after[0] < before[1] for before, after in pairwise(ordered))


def _merge_shared_rows(o: list[Piece], lse: list[Piece]) -> tuple[list[Piece], list[Piece]]:
    """One piece per run of rows, merged by log-sum-exp in at least fp32."""
    dtype = o[0].tensor.dtype
    wide = torch.promote_types(dtype, torch.float32)
    merged_o: list[Piece] = []
    merged_lse: list[Piece] = []
    for start, stop in _union(o):
        total = _piece(o[0].tensor, 1, start, stop, wide, 0.0)
        total_lse = _piece(lse[0].tensor, 2, start, stop, wide, -torch.inf)
        for part, part_lse in zip(o, lse, strict=True):
            if start <= part.start < stop:
                rows = slice(part.start - start, part.stop - start)
                merge_into(total[:, rows], total_lse[:, :, rows], part.tensor, part_lse.tensor)
        merged_o.append(Piece(start, stop, total.to(dtype)))
        merged_lse.append(Piece(start, stop, total_lse))
    return merged_o, merged_lse


def _add_shared_rows(pieces: list[Piece]) -> list[Piece]:
    """One piece per run of rows, summed in at least fp32."""
    dtype = pieces[0].tensor.dtype
    summed: list[Piece] = []
    for start, stop in _union(pieces):
        total = _piece(pieces[0].tensor, 1, start, stop, torch.promote_types(dtype, torch.float32), 0.0)
        for part in pieces:
            if start <= part.start < stop:
                add_into(total[:, part.start - start : part.stop - start], part.tensor)
        summed.append(Piece(start, stop, total.to(dtype)))
    return summed


def _union(pieces: Sequence[Piece]) -> Slices:
    return join_slices([(each.start, each.stop) for each in pieces])


def _piece(like: Tensor, dim: int, start: int, stop: int, dtype: torch.dtype, fill: float) -> Tensor:
    shape = list(like.shape)
    shape[dim] = stop - start
    return torch.full(shape, fill, dtype=dtype, device=like.device)

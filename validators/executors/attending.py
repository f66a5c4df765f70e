"""Attention of one rank, and merges of partial results.

    merge of (o, lse) with a partial (o_i, lse_i):    o -= sigmoid(lse_i - lse) (o - o_i),   lse = log(e^lse + e^lse_i)

What kernels return is kept as pieces of its buffer. Only where several launches of one operation share rows (or, in
backward, columns) are they put together, in at least fp32: by log-sum-exp, as a row that several steps compute is.
Source: Dao 2023 (arXiv 2307.08691) section 2; the merge as in ring-flash-attention, pull request 34.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from simulator.program.operations import Attention, Operation
from validators.executors.local import LocalOperations, Slices, gaps, join_slices
from validators.executors.packing import readable
from validators.executors.store import Piece
from validators.kernels import fused
from validators.kernels.fused import merge_into


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
    for call in local.lowering(operation).calls:
        for segment in call.segments:
            rows, columns = slice(segment.q_start, segment.q_stop), slice(segment.k_start, segment.k_stop)
            part, part_lse = local.kernel.forward(q[:, rows], k[:, columns], v[:, columns], call)
            o.append(Piece(rows.start, rows.stop, part))
            lse.append(Piece(rows.start, rows.stop, part_lse))
    if overlap(o):
        o, lse = _merge_shared_rows(o, lse)
    local.store.adopt(operation.writes[0], o)
    local.store.adopt(operation.writes[1], lse)


def _continue(local: LocalOperations, operation: Operation) -> None:
    """A running result is merged with that of each launch."""
    (q, k, v), (o, lse) = local.reads(operation), local.writes(operation)
    for call in local.lowering(operation).calls:
        for segment in call.segments:
            rows, columns = slice(segment.q_start, segment.q_stop), slice(segment.k_start, segment.k_stop)
            part, part_lse = local.kernel.forward(q[:, rows], k[:, columns], v[:, columns], call)
            local.merge(o[:, rows], lse[:, :, rows], part, part_lse)


def attention_backward(local: LocalOperations, operation: Operation) -> None:
    """dq, dk, dv <- the launches of this rank."""
    q, k, v, do, lse, row = local.reads(operation)
    delta = typing.cast(Attention, operation.work).precomputed_delta
    gradients: tuple[list[Piece], list[Piece], list[Piece]] = ([], [], [])
    for call in local.lowering(operation).calls:
        for segment in call.segments:
            rows, columns = slice(segment.q_start, segment.q_stop), slice(segment.k_start, segment.k_stop)
            row_part = row[:, :, rows] if delta else row[:, rows]
            parts = local.kernel.backward(
                q[:, rows], k[:, columns], v[:, columns], do[:, rows], lse[:, :, rows], row_part, call, delta=delta
            )
            for pieces, part, where in zip(gradients, parts, (rows, columns, columns), strict=True):
                pieces.append(Piece(where.start, where.stop, part))
    for buffer, pieces in zip(operation.writes, gradients, strict=True):
        local.store.adopt(buffer, _add_shared_rows(pieces) if overlap(pieces) else pieces)


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
                total[:, part.start - start : part.stop - start] += part.tensor
        summed.append(Piece(start, stop, total.to(dtype)))
    return summed


def _union(pieces: Sequence[Piece]) -> Slices:
    return join_slices([(each.start, each.stop) for each in pieces])


def _piece(like: Tensor, dim: int, start: int, stop: int, dtype: torch.dtype, fill: float) -> Tensor:
    shape = list(like.shape)
    shape[dim] = stop - start
    return torch.full(shape, fill, dtype=dtype, device=like.device)

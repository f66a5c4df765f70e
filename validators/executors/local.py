"""What one rank does in an operation that is not communication, on PyTorch tensors of any device and dtype.

One function per kind: ``perform[kind](operation, rank, reads, writes)``. Attention is done by an `AttentionKernel`, so
that the same code runs the float64 reference on a CPU and flash kernels on a GPU. A row that several launches of one
operation compute is merged by log-sum-exp, as a row that several steps compute is.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from cost_models.masks import KernelCall, Lowering, Segment
from simulator.program.lowered import LoweringColumn
from simulator.program.operations import Attention, Elementwise, Operation
from validators.dense import row_dot

Tensors = Sequence[Tensor]
Perform = Callable[[Operation, int, Tensors, Tensors], None]


class AttentionKernel(Protocol):
    """One segment of a launch: tensors [B, n, heads, D], LSE and delta [B, H, n], a window as in `KernelCall`."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, call: KernelCall) -> tuple[Tensor, Tensor]:
        """(o, lse)."""

    def backward(
        self, q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor, row: Tensor, call: KernelCall, *, delta: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv); ``row`` is delta [B, H, n] if ``delta``, else O."""


class LocalOperations:
    """The operations of one rank."""

    def __init__(self, kernel: AttentionKernel) -> None:
        self.kernel = kernel
        self.selected: dict[int, Tensor] = {}

    def perform(self, operation: Operation, rank: int, reads: Tensors, writes: Tensors) -> None:
        """Do one operation."""
        method: Perform = getattr(self, operation.kind)
        method(operation, rank, reads, writes)

    # -- attention ---------------------------------------------------------------------------------------------------

    def attention_forward(self, operation: Operation, rank: int, reads: Tensors, writes: Tensors) -> None:
        """o, lse <- the launches of this rank."""
        q, k, v = reads
        o, lse = writes
        seen: list[tuple[int, int]] = []
        for call, segment in _segments(_lowering(operation, rank)):
            rows, columns = slice(segment.q_start, segment.q_stop), slice(segment.k_start, segment.k_stop)
            part, part_lse = self.kernel.forward(q[:, rows], k[:, columns], v[:, columns], call)
            if any(rows.start < stop and start < rows.stop for start, stop in seen):
                _clear_unseen(o, lse, rows, seen)
                merge_into(o[:, rows], lse[:, :, rows], part, part_lse)
            else:
                o[:, rows], lse[:, :, rows] = part, part_lse
            seen.append((rows.start, rows.stop))

    def attention_backward(self, operation: Operation, rank: int, reads: Tensors, writes: Tensors) -> None:
        """dq, dk, dv <- the launches of this rank."""
        q, k, v, do, lse, row = reads
        delta = typing.cast(Attention, operation.work).precomputed_delta
        for gradient in writes:
            gradient.zero_()
        for call, segment in _segments(_lowering(operation, rank)):
            rows, columns = slice(segment.q_start, segment.q_stop), slice(segment.k_start, segment.k_stop)
            row_part = row[:, :, rows] if delta else row[:, rows]
            parts = self.kernel.backward(
                q[:, rows], k[:, columns], v[:, columns], do[:, rows], lse[:, :, rows], row_part, call, delta=delta
            )
            for gradient, part, where in zip(writes, parts, (rows, columns, columns), strict=True):
                gradient[:, where] += part

    def merge(self, operation: Operation, rank: int, reads: Tensors, writes: Tensors) -> None:
        """Running (o, lse) <- LSE-weighted sum, on the rows covered."""
        (part, part_lse), (o, lse) = reads, writes
        for start, stop in _covered(_restriction(operation), rank, "q"):
            rows = slice(start, stop)
            merge_into(o[:, rows], lse[:, :, rows], part[:, rows], part_lse[:, :, rows])

    def clear(self, operation: Operation, rank: int, reads: Tensors, writes: Tensors) -> None:
        """O = 0, lse = -inf outside the rows covered."""
        o, lse = writes
        covered = _covered(typing.cast(LoweringColumn, operation.options["covered"]), rank, "q")
        for start, stop in _gaps(covered, o.shape[1]):
            o[:, start:stop] = 0
            lse[:, :, start:stop] = -torch.inf

    def combine(self, operation: Operation, rank: int, reads: Tensors, writes: Tensors) -> None:
        """LSE-weighted sum of all ranks' partial results."""
        (o_all, lse_all), (o, lse) = reads, writes
        batch = o.shape[0]
        o_all, lse_all = o_all.reshape(-1, batch, *o.shape[1:]), lse_all.reshape(-1, batch, *lse.shape[1:])
        lse[:] = torch.logsumexp(lse_all, dim=0)
        weight = torch.exp(lse_all - lse).transpose(2, 3).unsqueeze(-1)
        o[:] = (weight * o_all).sum(dim=0)

    # -- elementwise -------------------------------------------------------------------------------------------------

    def accumulate(self, operation: Operation, rank: int, reads: Tensors, writes: Tensors) -> None:
        """Totals += parts, on the rows or columns covered."""
        restriction = typing.cast(Elementwise, operation.work).lowering
        for total, part in zip(writes, reads, strict=True):
            slices = [(0, part.shape[1])]
            if restriction is not None:
                slices = _covered(restriction, rank, typing.cast(Elementwise, operation.work).side)
            for start, stop in slices:
                total[:, start:stop] += part[:, start:stop]

    def row_dot(self, operation: Operation, rank: int, reads: Tensors, writes: Tensors) -> None:
        """Delta = rowsum(dO O)."""
        writes[0][:] = row_dot(reads[0].to(writes[0].dtype), reads[1].to(writes[0].dtype))

    def cast(self, operation: Operation, rank: int, reads: Tensors, writes: Tensors) -> None:
        """The same values in another dtype; zero outside what ``covered`` covers."""
        writes[0].copy_(reads[0])
        covered = operation.options.get("covered")
        if covered is not None:
            slices = _covered(typing.cast(LoweringColumn, covered), rank, str(operation.options["side"]))
            for start, stop in _gaps(slices, writes[0].shape[1]):
                writes[0][:, start:stop] = 0

    def pack(self, operation: Operation, rank: int, reads: Tensors, writes: Tensors) -> None:
        """To [P, B, tokens, heads, D], slices for the ranks outermost."""
        source, target = reads[0], writes[0]
        batch, slices = source.shape[0], target.shape[0] // source.shape[0]
        view = target.view(slices, batch, *target.shape[1:])
        if operation.options["axis"] == "tokens":
            view.copy_(source.view(batch, slices, -1, *source.shape[2:]).transpose(0, 1))
            return
        repeats = slices * target.shape[2] // source.shape[2]
        spread = source.repeat_interleave(repeats, dim=2) if repeats > 1 else source
        view.copy_(spread.view(batch, source.shape[1], slices, -1, source.shape[3]).permute(2, 0, 1, 3, 4))

    def unpack(self, operation: Operation, rank: int, reads: Tensors, writes: Tensors) -> None:
        """From [P, B, tokens, heads, D] to tokens or heads of all ranks in a row."""
        source, target = reads[0], writes[0]
        batch = target.shape[0]
        view = source.view(-1, batch, *source.shape[1:])
        if operation.options["axis"] == "tokens":
            target.view(batch, view.shape[0], -1, *target.shape[2:]).copy_(view.transpose(0, 1))
        else:
            split = target.view(batch, target.shape[1], view.shape[0], -1, target.shape[3])
            split.copy_(view.permute(1, 2, 0, 3, 4))

    def reduce_replicas(self, operation: Operation, rank: int, reads: Tensors, writes: Tensors) -> None:
        """Gradients of replicated heads, summed in the accumulation dtype."""
        source, target = reads[0], writes[0]
        batch, tokens, heads, dim = target.shape
        view = source.view(heads, -1, batch, tokens, dim)
        wide = torch.promote_types(source.dtype, torch.float32)
        target.copy_(view.sum(dim=1, dtype=wide).permute(1, 2, 0, 3))

    # -- APB ---------------------------------------------------------------------------------------------------------

    def score(self, operation: Operation, rank: int, reads: Tensors, writes: Tensors) -> None:
        """Scores [B, K, tokens] of the retaining head, max-pooled over neighbouring tokens."""
        q, k, v, first, second = reads
        rows = torch.cat([each.flatten(2) for each in (q, k, v)], dim=-1)
        scores = (torch.nn.functional.silu(rows @ first.T) @ second.T).transpose(1, 2)
        width = typing.cast(int, operation.options["pool"])
        writes[0].copy_(torch.nn.functional.max_pool1d(scores, width, stride=1, padding=width // 2))

    def select(self, operation: Operation, rank: int, reads: Tensors, writes: Tensors) -> None:
        """The keys and values with the highest scores, in their order; the indices [B, K, l_p] are kept."""
        scores, *sources = reads
        skip, count = typing.cast(int, operation.options["skip"]), writes[0].shape[1]
        best = torch.topk(scores[:, :, skip:], count, dim=-1).indices.sort(dim=-1).values + skip
        self.selected[rank] = best
        for source, target in zip(sources, writes, strict=True):
            index = best.transpose(1, 2).unsqueeze(-1).expand(-1, -1, -1, source.shape[-1])
            torch.gather(source, 1, index, out=target)

    def concat(self, operation: Operation, rank: int, reads: Tensors, writes: Tensors) -> None:
        """[The first ``before`` rows passed | own rows]."""
        (passed, own), target = reads, writes[0]
        before, batch = int(typing.cast(Sequence[int], operation.options["before"])[rank]), own.shape[0]
        view = passed.view(-1, batch, *passed.shape[1:]).transpose(0, 1).flatten(1, 2)
        target[:, :before] = view[:, :before]
        target[:, before:] = own


def merge_into(o: Tensor, lse: Tensor, part: Tensor, part_lse: Tensor) -> None:
    """In place, for o [B, n, H, D] and lse [B, H, n]: o -= sigmoid(lse_i - lse) (o - o_i)."""
    weight = torch.sigmoid(part_lse - lse).transpose(1, 2).unsqueeze(-1)
    weight = torch.where((part_lse == -torch.inf).transpose(1, 2).unsqueeze(-1), torch.zeros_like(weight), weight)
    o -= weight * (o - part)
    torch.logaddexp(lse, part_lse, out=lse)


def _lowering(operation: Operation, rank: int) -> Lowering:
    return typing.cast(Attention, operation.work).lowering.of(rank)


def _segments(lowering: Lowering) -> list[tuple[KernelCall, Segment]]:
    return [(call, segment) for call in lowering.calls for segment in call.segments]


def _restriction(operation: Operation) -> LoweringColumn:
    lowering = typing.cast(Elementwise, operation.work).lowering
    assert lowering is not None
    return lowering


def _covered(column: LoweringColumn, rank: int, side: str) -> list[tuple[int, int]]:
    """Disjoint slices of rows ("q") or columns ("k") that a rank's kernels touch."""
    start, stop = f"{side}_start", f"{side}_stop"
    slices = sorted((getattr(s, start), getattr(s, stop)) for _, s in _segments(column.of(rank)))
    joined: list[tuple[int, int]] = []
    for first, last in slices:
        if joined and first <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return joined


def _gaps(slices: list[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    edges = [0, *(edge for each in slices for edge in each), length]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]


def _clear_unseen(o: Tensor, lse: Tensor, rows: slice, seen: list[tuple[int, int]]) -> None:
    """Rows of a launch that no launch before it computed start from nothing."""
    fresh = torch.ones(rows.stop - rows.start, dtype=torch.bool, device=o.device)
    for start, stop in seen:
        fresh[max(0, start - rows.start) : max(0, stop - rows.start)] = False
    o[:, rows][:, fresh] = 0
    lse[:, :, rows][:, :, fresh] = -torch.inf

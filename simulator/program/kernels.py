"""Memory-bound kernels and dense products on tensors of all ranks: copies, sums, rows by token, selection.

Bytes are those of the buffers that are read and written; what is done for free, by the layer around or by the
communication beside it, says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cost_models.packing import packed_form
from cost_models.units import dtype_bytes
from simulator.program.communication import Communicator
from simulator.program.operations import Column, Elementwise, Gemm, IntArray
from simulator.program.partition import Layout
from simulator.program.tape import Tensor


class Kernels(Communicator):
    """A tape with communication and kernels other than attention's."""

    def cast(self, tensor: Tensor, dtype: str, pattern: str = "copy") -> Tensor:
        """The tensor in another dtype; itself if it is already."""
        if tensor.buffer.dtype == dtype:
            return tensor
        return self.copy("cast", (tensor,), self.like(tensor, tensor.buffer.name, dtype=dtype), pattern)

    def packed(self, tensor: Tensor, dtype: str) -> Tensor:
        """The tensor as packed rows."""
        b, form = tensor.buffer, packed_form(dtype)
        assert form is not None
        rows = self.tensor(b.name, b.layout, b.heads, form.row_bytes(b.dim), dtype, tokens=b.tokens, batch=b.batch)
        return self.copy("pack_rows", (tensor,), rows, "reduce")

    def unpacked(self, tensor: Tensor) -> Tensor:
        """The values of packed rows; any other tensor itself."""
        b, form = tensor.buffer, packed_form(tensor.buffer.dtype)
        if form is None:
            return tensor
        dtype, dim = self.setup.workload.dtype, form.values(b.dim)
        values = self.tensor(b.name, b.layout, b.heads, dim, dtype, tokens=b.tokens, batch=b.batch)
        return self.copy("unpack_rows", (tensor,), values, "copy")

    def copy(self, kind: str, source: Iterable[Tensor], target: Tensor, pattern: str, **options: Any) -> Tensor:
        """Fill ``target`` from ``source`` by a memory-bound kernel."""
        source = tuple(source)
        read = sum([tensor.buffer.bytes for tensor in source])
        self.emit(kind, Elementwise(pattern, read, target.buffer.bytes), source, (target,), **options)
        return target

    def add(self, totals: Sequence[Tensor], parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Add whole parts to totals, in one launch."""
        written = sum([total.buffer.bytes for total in totals])
        read = written + sum([part.buffer.bytes for part in parts])
        self.emit("accumulate", Elementwise("accumulate", read, written), parts, totals)
        return tuple(totals)

    def reorder(self, tensor: Tensor, source: Layout, target: Tensor, *, fused: bool = False) -> Tensor:
        """Fill ``target`` with the rows of the tokens in its layout; ``source`` says which tokens ``tensor`` has.

        Either may be [P B, tokens, ...], what P ranks hold one after the other, as collectives have it. ``fused``: done
        by the communication beside it, which finds its rows itself, at no cost of its own.
        """
        if fused:
            return self.stand_in("reorder", tensor, target, have=source, want=target.layout)
        executed = Elementwise("pack", tensor.buffer.bytes, target.buffer.bytes)  # by a kernel of ours
        return self.copy("reorder", (tensor,), target, "gather", have=source, want=target.layout, executed=executed)

    def add_by_token(self, totals: Sequence[Tensor], parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Add each row of the parts to the row of its token, in one launch."""
        read: Column = 0
        written: Column = 0
        for total, part in zip(totals, parts, strict=True):
            grown = part.buffer.bytes // dtype_bytes(part.buffer.dtype) * dtype_bytes(total.buffer.dtype)
            read, written = read + part.buffer.bytes + grown, written + grown
        self.emit("accumulate", Elementwise("accumulate", read, written), parts, totals, by_token=True)
        return tuple(totals)

    def sum_by_token(self, parts: Sequence[Tensor], layout: Layout) -> tuple[Tensor, ...]:
        """Of each token of a layout, the sum of the rows that the parts have of it, by the communication beside it."""
        totals = tuple([self.like(part, part.buffer.name, layout=layout) for part in parts])
        self.emit("accumulate", Elementwise("accumulate", 0, 0), parts, totals, by_token=True, fresh=True)
        return totals

    def stand_in(self, kind: str, tensor: Tensor, target: Tensor, **options: Any) -> Tensor:
        """Fill ``target`` from the tensor at no cost: work of the layer around, or of the communication beside it.

        Executors do it in a kernel of their own (``executed``), which is priced in predictions of their calls.
        """
        read, written = tensor.buffer.bytes, target.buffer.bytes
        executed = Elementwise("pack", read, written + read if kind == "place" else read)
        self.emit(kind, Elementwise("copy", 0, 0), (tensor,), (target,), executed=executed, **options)
        return target

    def product(self, kind: str, reads: Sequence[Tensor], target: Tensor, work: Gemm, **options: Any) -> Tensor:
        """Fill, or add to, ``target`` by dense products."""
        self.emit(kind, work, reads, (target,), **options)
        return target

    def select(self, scores: Tensor, source: Sequence[Tensor], kept: Sequence[Tensor], **options: Any) -> None:
        """Of each rank's rows, per head, those with the highest scores, in order; not the ``skip`` leading ones."""
        moved = sum([tensor.buffer.bytes for tensor in kept])
        work = Elementwise("gather", scores.buffer.bytes + moved, moved)
        self.emit("select", work, (scores, *source), kept, **options)

    def concat(self, passed: Tensor, own: Tensor, target: Tensor, before: IntArray) -> Tensor:
        """The first ``before[r]`` rows of all ranks' ``passed`` in rank order, then ``own``."""
        work = Elementwise("copy", target.buffer.bytes, target.buffer.bytes)
        self.emit("concat", work, (passed, own), (target,), before=before)
        return target

    def combine(self, o_all: Tensor, lse_all: Tensor, o: Tensor, lse: Tensor) -> None:
        """LSE-weighted sum of the partial results of all ranks."""
        read = o_all.buffer.bytes + lse_all.buffer.bytes
        work = Elementwise("combine", read, o.buffer.bytes + lse.buffer.bytes)
        self.emit("combine", work, (o_all, lse_all), (o, lse))

    def score(self, source: tuple[Tensor, ...], weights: tuple[Tensor, ...], name: str, **options: Any) -> Tensor:
        """APB's retaining head: weights(concat(source)), one score per token and output feature."""
        b = source[0].buffer
        scores = self.tensor(name, b.layout, int(weights[-1].buffer.tokens), 1, "fp32", tokens=b.tokens)
        shapes = tuple((int(w.buffer.tokens), w.buffer.dim) for w in weights)
        work = Gemm(b.tokens * b.batch, shapes, self.setup.workload.dtype)
        self.emit("score", work, (*source, *weights), (scores,), **options)
        return scores

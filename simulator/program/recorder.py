"""The machine that schedules are written for: attention, merges and communication on tensors of all ranks.

    def forward(r, q, k, v):                      # one SPMD function; every call below stands for all ranks
        total = None
        for _ in r.steps(r.setup.n_ranks):
            near = r.shift(ring, k, v)            # returns at once: on the ring's communication lane
            total = r.merge(total, r.attention(q, k, v))
            k, v = near
        return r.finish(total)

Which pairs a step computes follows from the layouts of its tensors and the mask. What waits for what, and when memory
is given back, are in `tape`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from cost_models.masks import Lowering
from cost_models.units import dtype_bytes
from simulator.program.kernels import Kernels
from simulator.program.lowered import LoweringColumn, column_of
from simulator.program.lowering_table import LoweringTable, lowering_table
from simulator.program.operations import Attention, Elementwise
from simulator.program.partition import Layout
from simulator.program.setup import Setup
from simulator.program.tape import Sink, Tensor


class Partial(NamedTuple):
    """A partial attention result and the kernels that made it."""

    o: Tensor
    lse: Tensor
    lowering: LoweringColumn


class Gradient(NamedTuple):
    """A partial gradient, and whether its kernels wrote the rows ("q") or the columns ("k") of their lowering."""

    tensor: Tensor
    lowering: LoweringColumn
    side: str


class Recorder(Kernels):
    """What schedules call. One object per Program."""

    def __init__(self, setup: Setup, sink: Sink) -> None:
        super().__init__(setup, sink)
        self._tables: dict[tuple[int, int], LoweringTable] = {}

    def steps(self, count: int) -> Iterator[int]:
        """0, 1, ..., count - 1; what is recorded meanwhile belongs to that step, counted on from the last one."""
        first = self.step
        for step in range(count):
            self.step = first + step
            yield step
        self.step = first + count

    # -- attention ---------------------------------------------------------------------------------------------------

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, lowerings: Sequence[Lowering] | None = None, into: Partial | None = None,
        out: tuple[Tensor, Tensor] | None = None,
    ) -> Partial:  # fmt: skip
        """Attend ``q`` to these keys: a partial (o, lse), on the rows that see any of them.

        ``lowerings`` gives each rank's kernels where rows and keys are not the sequence's under the workload's mask.
        ``into`` is a result that the kernels take up and continue, instead of a merge afterwards; ``out`` is where o
        and lse are to be. Packed keys and values are unpacked first.
        """
        lowering = column_of(lowerings) if lowerings is not None else self._lower(q.layout, k.layout)
        k, v = self.unpacked(k), self.unpacked(v)
        b, work = q.buffer, _work(lowering, "forward", q, k, v)
        if into is not None:
            total = Partial(self.cast(into.o, "fp32"), into.lse, into.lowering)
            self.emit("attention_forward", work, (q, k, v), total[:2], lowering=lowering, into=True)
            return total
        o, lse = out or (
            self.tensor("o_i", b.layout, b.heads, v.buffer.dim, b.dtype, tokens=b.tokens),
            self.tensor("lse_i", b.layout, b.heads, 1, "fp32", tokens=b.tokens),
        )
        self.emit("attention_forward", work, (q, k, v), (o, lse), lowering=lowering)
        return Partial(o, lse, lowering)

    def attention_cached(
        self, q: Tensor, cached: Sequence[Tensor], v_head_dim: int, lowerings: Sequence[Lowering]
    ) -> Partial:
        """Attend few queries to rows as a cache holds them: a kernel that unpacks what it reads.

        ``cached`` is keys and values, or keys alone, whose first ``v_head_dim`` features are the values.
        """
        b, keys, lowering = q.buffer, cached[0].buffer, column_of(lowerings)
        row = sum([each.buffer.dim * dtype_bytes(each.buffer.dtype) for each in cached])
        work = Attention(
            lowering, "forward", b.batch, b.heads, keys.heads, b.dim, v_head_dim, b.dtype, row_bytes=row
        )  # fmt: skip
        o = self.tensor("o_i", None, b.heads, v_head_dim, b.dtype, tokens=b.tokens)
        lse = self.tensor("lse_i", None, b.heads, 1, "fp32", tokens=b.tokens)
        self.emit("attention_cached", work, (q, *cached), (o, lse), lowering=lowering)
        return Partial(o, lse, lowering)

    def attention_backward(
        self, q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor, *, o: Tensor | None = None,
        delta: Tensor | None = None, lowerings: Sequence[Lowering] | None = None, dq: Tensor | None = None,
    ) -> tuple[Gradient, Gradient, Gradient]:  # fmt: skip
        """Gradients (dq, dk, dv) of one block of pairs, from the final LSE and O, or from delta = rowsum(dO O).

        ``dq`` is where dQ is to be, zero in rows without a key.
        """
        lowering = column_of(lowerings) if lowerings is not None else self._lower(q.layout, k.layout)
        row = delta or o
        assert row is not None
        dk, dv = self.like(k, "dk_i"), self.like(v, "dv_i")
        dq = dq or self.like(q, "dq_i")
        work = _work(lowering, "backward", q, k, v, precomputed_delta=delta is not None)
        self.emit("attention_backward", work, (q, k, v, do, lse, row), (dq, dk, dv), lowering=lowering)
        return Gradient(dq, lowering, "q"), Gradient(dk, lowering, "k"), Gradient(dv, lowering, "k")

    def _lower(self, queries: Layout, keys: Layout) -> LoweringColumn:
        """The kernels each rank launches for the query and key rows it holds."""
        key = id(queries.partition), id(keys.partition)
        if key not in self._tables:
            workload = self.setup.workload
            self._tables[key] = lowering_table(workload.mask, workload.seq_len, queries.partition, keys.partition)
        return self._tables[key].column(queries, keys)

    def merge(self, total: Partial | None, part: Partial) -> Partial:
        """LSE-weighted sum: o' = o - sigmoid(lse_i - lse) (o - o_i), in fp32 and in place. The first is taken as is."""
        if total is None:
            return self._complete(part)
        o, lse = self.cast(total.o, "fp32"), total.lse
        rows, width = o.buffer.batch * o.buffer.heads, o.buffer.dim
        read = rows * (width * (4 + dtype_bytes(part.o.buffer.dtype)) + 8)
        work = Elementwise("merge", read, rows * (4 * width + 4), part.lowering, "q")
        self.emit("merge", work, (part.o, part.lse), (o, lse), lowering=part.lowering)
        return Partial(o, lse, total.lowering)

    def _complete(self, part: Partial) -> Partial:
        """A partial result that is defined on all rows: o = 0 and lse = -inf where no key is seen yet."""
        if not self._covers(part.lowering, "q", part.o):
            work = Elementwise("fill", 0, part.o.buffer.bytes + part.lse.buffer.bytes)
            self.emit("clear", work, (), (part.o, part.lse), covered=part.lowering)
        return part

    def finish(self, total: Partial | None) -> tuple[Tensor, Tensor]:
        """(O, LSE), O in the working dtype."""
        assert total is not None
        return self.cast(total.o, self.setup.workload.dtype), total.lse

    def row_dot(self, do: Tensor, o: Tensor) -> Tensor:
        """Row sums of dO O, fp32."""
        b = o.buffer
        delta = self.tensor("delta", b.layout, b.heads, 1, "fp32", tokens=b.tokens)
        self.emit("row_dot", Elementwise("reduce", 2 * b.bytes, delta.buffer.bytes), (do, o), (delta,))
        return delta

    def accumulate(
        self, totals: Sequence[Tensor] | None, parts: Sequence[Gradient], dtype: str, pattern: str | None = None
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Add parts to totals on what they cover, in one launch; the first parts become the totals, in ``dtype``.

        ``pattern`` is how memory is accessed, by default that of a fused kernel.
        """
        if totals is None:
            return tuple([self._first(part, dtype, pattern or "copy") for part in parts])
        lowering, side = parts[0].lowering, parts[0].side
        read = written = 0
        for total, part in zip(totals, parts, strict=True):
            b = part.tensor.buffer
            size = b.batch * b.heads * b.dim
            read += size * (dtype_bytes(b.dtype) + dtype_bytes(total.buffer.dtype))
            written += size * dtype_bytes(total.buffer.dtype)
        work = Elementwise(pattern or "accumulate", read, written, lowering, side)
        self.emit("accumulate", work, [part.tensor for part in parts], totals, lowering=lowering, side=side)
        return tuple(totals)

    def _first(self, part: Gradient, dtype: str, pattern: str) -> Tensor:
        """The first contribution as an accumulator: in ``dtype``, zero where no kernel wrote."""
        tensor = part.tensor
        if self._covers(part.lowering, part.side, tensor):
            return self.cast(tensor, dtype, pattern)
        result = self.like(tensor, tensor.buffer.name, dtype=dtype)
        work = Elementwise(pattern, tensor.buffer.bytes, result.buffer.bytes)
        self.emit("cast", work, (tensor,), (result,), covered=part.lowering, side=part.side)
        return result

    def _covers(self, lowering: LoweringColumn, side: str, tensor: Tensor) -> bool:
        """Whether the kernels write every row of the tensor on every rank."""
        return bool(np.all(lowering.gather(lowering.table.covered(side)) == tensor.buffer.tokens))


def _work(
    lowering: LoweringColumn, direction: str, q: Tensor, k: Tensor, v: Tensor, *, precomputed_delta: bool = False
) -> Attention:
    b = q.buffer
    return Attention(
        lowering, direction, b.batch, b.heads, k.buffer.heads, b.dim, v.buffer.dim, b.dtype, precomputed_delta
    )

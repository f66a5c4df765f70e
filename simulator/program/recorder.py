"""Records a schedule: an SPMD function calls these methods, a sink receives buffers and operations in issue order.

Lanes, and what an operation waits for (the same rules in both engines and in the executors):

1. the operation before it on its own lane (lanes run in order, as CUDA streams do);
2. its issue by the host, which issues all operations in order;
3. on a communication lane: every operation issued before it on the compute lane, as `torch.distributed` makes NCCL's
   stream wait for the current one. Receive buffers may therefore reuse memory that compute has finished with;
4. for each buffer it reads, the last write on another lane; for each it writes, also the reads on other lanes.

Memory is taken when a tensor is made and given back when the schedule drops its last reference, in issue order, as in
PyTorch. A tensor that a communication lane uses is given back only once the compute lane has waited for that use.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from cost_models.masks import Lowering
from simulator.program.lowered import LoweringColumn, LoweringTable, column_of
from simulator.program.operations import (
    COMPUTE,
    Attention,
    Buffer,
    Collective,
    Column,
    Elementwise,
    Exchange,
    Gemm,
    Operation,
    Ring,
    Work,
)
from simulator.program.partition import Layout, Partition
from simulator.program.setup import Setup


class Sink(Protocol):
    """Receives a Program in issue order."""

    def allocate(self, buffer: Buffer) -> None:
        """A buffer begins to occupy memory."""

    def release(self, buffer: Buffer) -> None:
        """A buffer's memory is free again."""

    def operation(self, operation: Operation) -> None:
        """The host issues an operation."""


class Tensor:
    """What a schedule holds: a buffer that lives as long as it is referred to."""

    __slots__ = ("_recorder", "buffer", "last_use")

    def __init__(self, recorder: Recorder, buffer: Buffer) -> None:
        self._recorder, self.buffer = recorder, buffer
        self.last_use: dict[str, int] | None = None

    def __del__(self) -> None:
        self._recorder._drop(self.buffer, self.last_use)

    @property
    def layout(self) -> Layout:
        """Which tokens of the sequence each rank's rows are."""
        assert self.buffer.layout is not None
        return self.buffer.layout


class Recorder:
    """The machine a schedule is written for. One object per Program.

    Attributes
    ----------
    setup : the workload and the ranks.
    phase : ``forward`` or ``backward``, stamped on what is recorded.
    step : the schedule's step, likewise.
    muted : while true, tensors are tracked but nothing reaches the sink.
    """

    def __init__(self, setup: Setup, sink: Sink) -> None:
        self.setup, self.sink = setup, sink
        self.phase, self.step = "forward", 0
        self.muted = False
        self._buffers = self._operations = 0
        self._live: dict[int, Buffer] = {}
        self._written_on: dict[int, tuple[str, int]] = {}
        self._joined: dict[str, int] = {}
        self._waiting: list[tuple[Buffer, dict[str, int]]] = []
        self._tables: dict[tuple[int, int], LoweringTable] = {}

    # -- tensors -----------------------------------------------------------------------------------------------------

    def tensor(
        self,
        name: str,
        layout: Layout | None,
        heads: int,
        dim: int,
        dtype: str,
        *,
        tokens: Column | None = None,
        batch: int | None = None,
        row_statistic: bool = False,
    ) -> Tensor:
        """A new tensor per rank, of the tokens in ``layout`` (or of ``tokens`` rows)."""
        if tokens is None:
            assert layout is not None
            tokens = layout.tokens
        buffer = Buffer(
            self._buffers, name, batch or self.setup.workload.batch, tokens, heads, dim, dtype, layout, row_statistic
        )
        self._buffers += 1
        self._live[buffer.id] = buffer
        if not self.muted:
            self.sink.allocate(buffer)
        return Tensor(self, buffer)

    def like(self, tensor: Tensor, name: str, *, dtype: str | None = None, layout: Layout | None = None) -> Tensor:
        """A new tensor of the same shape."""
        old = tensor.buffer
        return self.tensor(
            name,
            layout or old.layout,
            old.heads,
            old.dim,
            dtype or old.dtype,
            tokens=None if layout else old.tokens,
            batch=old.batch,
            row_statistic=old.row_statistic,
        )

    def unmute(self) -> None:
        """From here on everything reaches the sink; what is alive becomes an input."""
        self.muted = False
        for buffer in self._live.values():
            self.sink.allocate(buffer)

    def _drop(self, buffer: Buffer, last_use: dict[str, int] | None) -> None:
        if last_use and any(self._joined.get(lane, -1) < use for lane, use in last_use.items()):
            self._waiting.append((buffer, last_use))
        else:
            self._release(buffer)

    def _release(self, buffer: Buffer) -> None:
        del self._live[buffer.id]
        self._written_on.pop(buffer.id, None)
        if not self.muted:
            self.sink.release(buffer)

    # -- operations --------------------------------------------------------------------------------------------------

    def emit(
        self,
        kind: str,
        work: Work,
        reads: Iterable[Tensor],
        writes: Iterable[Tensor],
        *,
        lane: str = COMPUTE,
        lowering: LoweringColumn | None = None,
        **options: object,
    ) -> None:
        """Issue one operation. With ``lowering``, only ranks that have anything to compute take part."""
        reads, writes = tuple(reads), tuple(writes)
        number, self._operations = self._operations, self._operations + 1
        if lane == COMPUTE:
            self._join(reads)
            self._join(writes)
        else:
            self._use(lane, number, reads)
            self._use(lane, number, writes)
            for tensor in writes:
                self._written_on[tensor.buffer.id] = (lane, number)
        if self.muted:
            return
        self.sink.operation(
            Operation(
                number,
                kind,
                lane,
                self.phase,
                self.step,
                tuple([tensor.buffer for tensor in reads]),
                tuple([tensor.buffer for tensor in writes]),
                work,
                lowering.active if lowering is not None else None,
                tuple(options.items()),
            )
        )

    def _use(self, lane: str, number: int, tensors: tuple[Tensor, ...]) -> None:
        for tensor in tensors:
            if tensor.last_use is None:
                tensor.last_use = {}
            tensor.last_use[lane] = number

    def _join(self, tensors: tuple[Tensor, ...]) -> None:
        """The compute lane waits for the communication that wrote these; memory that waited for it is released."""
        advanced = False
        for tensor in tensors:
            written = self._written_on.get(tensor.buffer.id)
            if written and self._joined.get(written[0], -1) < written[1]:
                self._joined[written[0]] = written[1]
                advanced = True
        if advanced and self._waiting:
            waiting, self._waiting = self._waiting, []
            for buffer, last_use in waiting:
                self._drop(buffer, last_use)

    # -- attention ---------------------------------------------------------------------------------------------------

    def lowering(self, queries: Layout, keys: Layout) -> LoweringColumn:
        """The kernels each rank launches for the query and key rows it holds."""
        key = id(queries.partition), id(keys.partition)
        if key not in self._tables:
            workload = self.setup.workload
            self._tables[key] = LoweringTable(workload.mask, workload.seq_len, queries.partition, keys.partition)
        return self._tables[key].column(queries, keys)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, lowerings: list[Lowering] | None = None) -> Partial:
        """Attend ``q`` to these keys: a partial (o, lse), on the rows that see any of them."""
        lowering = column_of(lowerings) if lowerings is not None else self.lowering(q.layout, k.layout)
        o = self.tensor("o_i", q.buffer.layout, q.buffer.heads, v.buffer.dim, q.buffer.dtype, tokens=q.buffer.tokens)
        lse = self.tensor(
            "lse_i", q.buffer.layout, q.buffer.heads, 1, "fp32", tokens=q.buffer.tokens, row_statistic=True
        )
        work = self._attention_work(lowering, "forward", q, k, v)
        self.emit("attention_forward", work, (q, k, v), (o, lse), lowering=lowering)
        return Partial(o, lse, lowering)

    def attention_backward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        do: Tensor,
        lse: Tensor,
        *,
        o: Tensor | None = None,
        delta: Tensor | None = None,
    ) -> tuple[Gradient, Gradient, Gradient]:
        """Gradients (dq, dk, dv) of one block of pairs, from the final LSE and O, or from delta = rowsum(dO O)."""
        lowering = self.lowering(q.layout, k.layout)
        row = delta if delta is not None else o
        assert row is not None
        grads = tuple(self.like(tensor, f"d{name}_i") for name, tensor in (("q", q), ("k", k), ("v", v)))
        work = self._attention_work(lowering, "backward", q, k, v, delta is not None)
        self.emit("attention_backward", work, (q, k, v, do, lse, row), grads, lowering=lowering)
        dq, dk, dv = grads
        return Gradient(dq, lowering, "q"), Gradient(dk, lowering, "k"), Gradient(dv, lowering, "k")

    def _attention_work(
        self, lowering: LoweringColumn, direction: str, q: Tensor, k: Tensor, v: Tensor, delta: bool = False
    ) -> Attention:
        b = q.buffer
        return Attention(
            lowering, direction, b.batch, b.heads, k.buffer.heads, b.dim, v.buffer.dim, b.dtype, precomputed_delta=delta
        )

    def merge(self, total: Partial | None, part: Partial) -> Partial:
        """LSE-weighted sum: o' = o - sigmoid(lse_i - lse) (o - o_i), in fp32 and in place. The first is taken as it is."""
        if total is None:
            return part
        o, lse = total.o, total.lse
        if o.buffer.dtype != "fp32":
            o = self.cast(o, "fp32")
        row = o.buffer.batch * o.buffer.heads
        width = o.buffer.dim
        work = Elementwise("merge", row * (6 * width + 8), row * (4 * width + 4), part.lowering, "q")
        self.emit("merge", work, (part.o, part.lse), (o, lse), lowering=part.lowering)
        return Partial(o, lse, total.lowering)

    def finish(self, total: Partial | None) -> tuple[Tensor, Tensor]:
        """(O, LSE) in the working dtype."""
        assert total is not None
        return self.cast(total.o, self.setup.workload.dtype), total.lse

    def row_dot(self, do: Tensor, o: Tensor) -> Tensor:
        """delta = rowsum(dO O), fp32."""
        b = o.buffer
        delta = self.tensor("delta", b.layout, b.heads, 1, "fp32", tokens=b.tokens, row_statistic=True)
        self.emit("row_dot", Elementwise("reduce", 2 * b.bytes, delta.buffer.bytes), (do, o), (delta,))
        return delta

    def accumulate(self, total: Tensor | None, part: Gradient, dtype: str | None = None) -> Tensor:
        """total += part on the rows it covers; the first becomes the total, in ``dtype``."""
        b = part.tensor.buffer
        if total is None:
            return self._first(part, dtype or b.dtype)
        size, row = _itemsize(total), b.batch * b.heads * b.dim
        work = Elementwise("accumulate", row * (_itemsize(part.tensor) + size), row * size, part.lowering, part.side)
        self.emit("accumulate", work, (part.tensor,), (total,), lowering=part.lowering, side=part.side)
        return total

    def _first(self, part: Gradient, dtype: str) -> Tensor:
        """The first contribution as an accumulator: in ``dtype``, zero where no kernel wrote."""
        table, tensor = part.lowering.table, part.tensor
        covered = table.rows if part.side == "q" else table.columns
        partial = (
            bool((part.lowering.gather(covered) != tensor.buffer.tokens).any())
            if not np.isscalar(part.lowering.gather(covered))
            else part.lowering.gather(covered) != tensor.buffer.tokens
        )
        if not partial and dtype == tensor.buffer.dtype:
            return tensor
        return self.cast(tensor, dtype, part)

    # -- elementwise -------------------------------------------------------------------------------------------------

    def cast(self, tensor: Tensor, dtype: str, part: Gradient | None = None) -> Tensor:
        """The tensor in another dtype (itself if it is already); with ``part``, zero where ``part`` covers nothing."""
        if tensor.buffer.dtype == dtype and part is None:
            return tensor
        result = self.like(tensor, tensor.buffer.name, dtype=dtype)
        work = Elementwise("copy", tensor.buffer.bytes, result.buffer.bytes)
        if part is None:
            self.emit("cast", work, (tensor,), (result,))
        else:
            self.emit("cast", work, (tensor,), (result,), side=part.side, covered=part.lowering)
        return result

    def copy(self, kind: str, source: Iterable[Tensor], target: Tensor, pattern: str, **options: object) -> Tensor:
        """Fill ``target`` from ``source`` by a memory-bound kernel."""
        source = tuple(source)
        read = sum(tensor.buffer.bytes for tensor in source)
        self.emit(kind, Elementwise(pattern, read, target.buffer.bytes), source, (target,), **options)
        return target

    # -- communication -----------------------------------------------------------------------------------------------

    def shift(self, ring: Ring, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Pass tensors to the next rank of the ring, as one grouped exchange; what arrives is returned at once."""
        if ring.size == 1:
            return tensors
        arriving = tuple([self._moved(tensor, ring) for tensor in tensors])
        sent = sum([tensor.buffer.bytes for tensor in tensors])
        self.emit("exchange", Exchange(ring, sent), tensors, arriving, lane=ring.lane)
        return arriving

    def _moved(self, tensor: Tensor, ring: Ring) -> Tensor:
        layout = tensor.buffer.layout
        return self.like(tensor, tensor.buffer.name, layout=layout.moved(ring.source) if layout else None)

    def all_gather(self, tensors: tuple[Tensor, ...], gathered: tuple[Tensor, ...]) -> None:
        """Every rank receives every rank's tensors, in rank order; one grouped collective."""
        sent = sum(tensor.buffer.bytes for tensor in tensors) * (self.setup.n_ranks - 1)
        work = Collective("all_gather", sent, np.arange(self.setup.n_ranks))
        self.emit("all_gather", work, tensors, gathered, lane="comm:group")

    def all_to_all(self, tensors: tuple[Tensor, ...], exchanged: tuple[Tensor, ...]) -> None:
        """Every rank sends the i-th of P equal slices to rank i; one grouped collective."""
        p = self.setup.n_ranks
        sent = sum(tensor.buffer.bytes for tensor in tensors) * (p - 1) // p
        self.emit("all_to_all", Collective("all_to_all", sent, np.arange(p)), tensors, exchanged, lane="comm:group")

    def score(self, source: tuple[Tensor, ...], weights: tuple[Tensor, ...], scores: Tensor, **options: object) -> None:
        """APB's retaining head: scores <- weights(concat(source))."""
        shapes = tuple((w.buffer.dim, int(np.max(w.buffer.tokens))) for w in weights)
        work = Gemm(scores.buffer.tokens, shapes, self.setup.workload.dtype)
        self.emit("score", work, (*source, *weights), (scores,), **options)

    def home(self, partition: Partition) -> Layout:
        """The layout in which every rank holds its own part."""
        return Layout.home(partition)


class Partial:
    """A partial attention result and the kernels that made it."""

    __slots__ = ("lowering", "lse", "o")

    def __init__(self, o: Tensor, lse: Tensor, lowering: LoweringColumn) -> None:
        self.o, self.lse, self.lowering = o, lse, lowering


class Gradient:
    """A partial gradient and the rows (side "q") or columns ("k") its kernels wrote."""

    __slots__ = ("lowering", "side", "tensor")

    def __init__(self, tensor: Tensor, lowering: LoweringColumn, side: str) -> None:
        self.tensor, self.lowering, self.side = tensor, lowering, side


def _itemsize(tensor: Tensor) -> int:
    from cost_models.units import dtype_bytes

    return dtype_bytes(tensor.buffer.dtype)

"""What a schedule's tensors and operations become: events for a sink, in issue order.

Lanes, and what an operation waits for (the same rules in both engines and in the executors):

1. the operation before it on its own lane (lanes run in order, as CUDA streams do);
2. its issue by the host, which issues all operations in order;
3. on a communication lane: every operation issued before it on the compute lane, as `torch.distributed` makes NCCL's
   stream wait for the current one. Receive buffers may therefore reuse memory that compute has finished with;
4. on the compute lane, for each buffer it touches: the last write on a communication lane; for each it writes, also
   the reads there;
5. on a communication lane, for each buffer it touches: the last write on another communication lane, and for each it
   writes the reads there;
6. on the host lane (the host synchronises): every operation issued before it on the compute lane, and for each buffer
   it reads the last write on a communication lane. The host issues nothing more until it ends. Only Programs made
   from traces have these.

Memory is taken when a tensor is made and given back when the schedule drops its last reference, in issue order, as in
PyTorch. A tensor that a communication lane uses is given back only once the compute lane has waited for that use.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cost_models.units import DTYPE_BYTES
from simulator.program.lowered import LoweringColumn
from simulator.program.operations import COMPUTE, Buffer, Column, Operation, Slices, Work
from simulator.program.partition import Layout
from simulator.program.setup import Setup


class Sink(Protocol):
    """Receives a Program in issue order."""

    def allocate(self, buffer: Buffer) -> None:
        """A buffer begins to occupy memory."""

    def release(self, buffer: Buffer) -> None:
        """A buffer's memory is free again."""

    def operation(self, operation: Operation) -> None:
        """The host issues an operation."""

    def finish(self, outputs: dict[str, Buffer]) -> None:
        """The schedule has returned; its results are in these buffers."""


class Ignore:
    """A sink that ignores everything: a base for those that need only some of the events."""

    def allocate(self, buffer: Buffer) -> None:
        """Ignored."""

    def release(self, buffer: Buffer) -> None:
        """Ignored."""

    def operation(self, operation: Operation) -> None:
        """Ignored."""

    def finish(self, outputs: dict[str, Buffer]) -> None:
        """Ignored."""


class Tensor:
    """What a schedule holds: a buffer that lives as long as it, or a view of it, is referred to."""

    __slots__ = ("_tape", "base", "buffer", "last_use")

    def __init__(self, tape: Tape, buffer: Buffer, base: Tensor | None = None) -> None:
        self._tape, self.buffer, self.base = tape, buffer, base
        self.last_use: dict[str, int] | None = None

    def __del__(self) -> None:
        if self.base is None:
            self._tape.drop(self.buffer, self.last_use)

    @property
    def layout(self) -> Layout:
        """Which tokens of the sequence each rank's rows are."""
        assert self.buffer.layout is not None
        return self.buffer.layout


class Tape:
    """Turns tensors and operations into events.

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
        is_input: bool = False,
        slices: tuple[Slices, ...] = (),
        bits: float | None = None,
        size: Column | None = None,
        on_host: bool = False,
    ) -> Tensor:
        """A new tensor per rank, of the tokens in ``layout`` (or of ``tokens`` rows).

        ``bits`` is the size of an element where it is stored in another form than ``dtype`` (quantised), ``size`` the
        bytes in all where they are known.
        """
        if tokens is None:
            assert layout is not None
            tokens = layout.tokens
        batch = batch or self.setup.workload.batch
        row = batch * heads * dim
        if size is None:
            size = tokens * (row * DTYPE_BYTES[dtype]) if bits is None else _packed(tokens * row, bits)
        buffer = Buffer(self._buffers, name, batch, tokens, heads, dim, dtype, size, layout, is_input, slices, on_host)
        self._buffers += 1
        self._live[buffer.id] = buffer
        if not self.muted:
            self.sink.allocate(buffer)
        return Tensor(self, buffer)

    def like(
        self,
        tensor: Tensor,
        name: str,
        *,
        dtype: str | None = None,
        layout: Layout | None = None,
        is_input: bool = False,
    ) -> Tensor:
        """A new tensor of the same shape."""
        old = tensor.buffer
        tokens = None if layout else old.tokens
        return self.tensor(
            name,
            layout or old.layout,
            old.heads,
            old.dim,
            dtype or old.dtype,
            tokens=tokens,
            batch=old.batch,
            is_input=is_input,
        )

    def view(
        self, tensor: Tensor, name: str, *, heads: tuple[Column, int] | None = None,
        rows: tuple[Column, Column] | None = None, layout: Layout | None = None,
    ) -> Tensor:  # fmt: skip
        """Part of a tensor, without a copy: (first, number) of its heads or rows, which ``layout`` describes."""
        b, whole = tensor.buffer, tensor.base or tensor
        first_head, n_heads = heads if heads is not None else (0, b.heads)
        first_row, tokens = rows if rows is not None else (0, b.tokens)
        buffer = Buffer(b.id, name, b.batch, tokens, n_heads, b.dim, b.dtype,
                        tokens * (b.batch * n_heads * b.dim * DTYPE_BYTES[b.dtype]),
                        layout or b.layout, base=whole.buffer, first_head=b.first_head + first_head,
                        first_row=b.first_row + first_row)  # fmt: skip
        return Tensor(self, buffer, whole)

    def unmute(self) -> None:
        """From here on everything reaches the sink; what the schedule still refers to becomes an input."""
        for buffer, _ in self._waiting:
            del self._live[buffer.id]
        self._waiting.clear()
        self.muted = False
        for buffer in self._live.values():
            buffer.is_input = True
            self.sink.allocate(buffer)

    def close(self, outputs: dict[str, Tensor]) -> None:
        """The end: nothing is recorded any more."""
        self.sink.finish({name: tensor.buffer for name, tensor in outputs.items()})
        self.muted = True

    def drop(self, buffer: Buffer, last_use: dict[str, int] | None) -> None:
        """The schedule no longer refers to a buffer: release it, now or when communication has been waited for."""
        if last_use:
            for lane, use in last_use.items():
                if self._joined.get(lane, -1) < use:
                    self._waiting.append((buffer, last_use))
                    return
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
        ranks: NDArray[np.bool_] | None = None,
        **options: object,
    ) -> None:
        """Issue one operation. With ``lowering``, only ranks that have anything to compute take part; or ``ranks``."""
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
                lowering.active if lowering is not None else ranks,
                options,
            )
        )

    def _use(self, lane: str, number: int, tensors: tuple[Tensor, ...]) -> None:
        for tensor in tensors:
            whole = tensor.base or tensor
            if whole.last_use is None:
                whole.last_use = {}
            whole.last_use[lane] = number

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
                self.drop(buffer, last_use)


def _packed(elements: Column, bits: float) -> Column:
    """Whole bytes of so many elements."""
    size = np.ceil(np.asarray(elements) * (bits / 8)).astype(np.int64)
    return int(size) if isinstance(elements, int) else size

"""Spreads the events of one context parallel group over all ranks of a grid.

A schedule, and what surrounds it in a layer, is recorded for the P ranks of one context parallel group. In a grid there
are many such groups, which do the same with other data. A column over P becomes a column over all ranks,

    lifted[rank] = column[context coordinate of rank],

a ring with step a becomes one with step a x stride of the context axis, groups of a collective are numbered apart.
Columns over all ranks (weights' parts, groups of tensor or data parallel ranks) pass as they are. Inside a pipeline
stage, only that stage's ranks take part and hold buffers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simulator.grid import Grid
from simulator.program.lowered import LoweringColumn
from simulator.program.operations import (
    Attention,
    Buffer,
    Collective,
    Column,
    Elementwise,
    Exchange,
    Gemm,
    HostCopy,
    IntArray,
    Operation,
    Stencil,
    Work,
)
from simulator.program.partition import Layout
from simulator.program.rings import Matching, Ring
from simulator.program.tape import Sink


class Lift:
    """A sink that passes everything on to another, for all ranks.

    Parameters
    ----------
    grid : the ranks.
    sink : what is told.

    Attributes
    ----------
    stages : pipeline stages whose ranks take part, and hold the buffers that are made.
    """

    def __init__(self, grid: Grid, sink: Sink) -> None:
        self._grid, self._sink = grid, sink
        self._buffers: dict[int, Buffer] = {}
        self._rings: dict[Ring | Matching, Ring | Matching] = {}
        self._layouts: dict[Layout, Layout] = {}
        self._groups: dict[bytes, IntArray] = {}
        self._stage_of = grid.coordinate("pp")
        self._members: dict[tuple[int, ...], NDArray[np.bool_]] = {}
        self._splits: dict[tuple[int, tuple[int, ...]], tuple[IntArray, IntArray]] = {}
        self.stages: tuple[int, ...] = tuple(range(grid.pp))

    def allocate(self, buffer: Buffer) -> None:
        """Pass it on."""
        self._buffers[buffer.id] = self._buffer(buffer)
        self._sink.allocate(self._buffers[buffer.id])

    def release(self, buffer: Buffer) -> None:
        """Pass it on."""
        self._sink.release(self._buffers.pop(buffer.id))

    def operation(self, operation: Operation) -> None:
        """Pass it on."""
        ranks = operation.ranks
        if ranks is not None:
            ranks = ranks if len(ranks) == self._grid.n_ranks else ranks[self._grid.context]
        if len(self.stages) < self._grid.pp:
            ranks = self._on_stages if ranks is None else self._on_stages & ranks
        options = {name: self._option(value) for name, value in operation.options.items()}
        self._sink.operation(
            Operation(
                operation.id,
                operation.kind,
                operation.lane,
                operation.phase,
                operation.step,
                tuple([self._lifted(buffer) for buffer in operation.reads]),
                tuple([self._lifted(buffer) for buffer in operation.writes]),
                self._work(operation.work),
                ranks,
                options,
            )
        )

    def finish(self, outputs: dict[str, Buffer]) -> None:
        """Pass it on."""
        self._sink.finish({name: self._lifted(buffer) for name, buffer in outputs.items()})

    def _lifted(self, buffer: Buffer) -> Buffer:
        if buffer.base is None:
            return self._buffers[buffer.id]
        first_head, first_row = self._column(buffer.first_head), self._column(buffer.first_row)
        base = self._buffers[buffer.id]
        return replace(self._buffer(buffer), base=base, first_head=first_head, first_row=first_row)

    def _buffer(self, buffer: Buffer) -> Buffer:
        size, tokens = self._own(self._column(buffer.bytes)), self._own(self._column(buffer.tokens))
        layout = None if buffer.layout is None else self._layout(buffer.layout)
        return replace(buffer, bytes=size, tokens=tokens, layout=layout)

    def _layout(self, layout: Layout) -> Layout:
        if len(layout.owner) == self._grid.n_ranks:
            return layout
        if layout not in self._layouts:
            context, first_head = self._grid.context, layout.first_head
            first_head = None if first_head is None else first_head[context]
            self._layouts[layout] = Layout(layout.partition, layout.owner[context], None, first_head)
        return self._layouts[layout]

    def _work(self, work: Work) -> Work:
        if isinstance(work, Attention):
            return replace(work, lowering=self._lowering(work.lowering))
        if isinstance(work, Exchange):
            return Exchange(self._ring(work.ring), self._column(work.bytes), work.largest)
        if isinstance(work, Collective):
            return self._collective(work)
        if isinstance(work, Gemm):
            return replace(work, m=self._column(work.m), planes=self._column(work.planes))
        if isinstance(work, HostCopy):
            return HostCopy(self._column(work.bytes))
        if isinstance(work, Stencil):
            return Stencil(*[self._column(each) for each in (work.bytes_read, work.bytes_written, work.flop)])
        lowering = None if work.lowering is None else self._lowering(work.lowering)
        read, written = self._column(work.bytes_read), self._column(work.bytes_written)
        return Elementwise(work.pattern, read, written, lowering, work.side)

    def _collective(self, work: Collective) -> Collective:
        groups, world = work.groups, self._grid.n_ranks
        if groups is None or len(groups) != world:
            key = b"" if groups is None else groups.tobytes()
            if key not in self._groups:
                others = self._grid.groups("cp")
                own = np.zeros(self._grid.cp, dtype=np.int64) if groups is None else groups
                self._groups[key] = own[self._grid.context] + others * (int(own.max()) + 1)
            groups = self._groups[key]
        splits = None if work.splits is None else self._split(work.splits)
        size, sent = self._column(work.bytes), self._column(work.bytes_sent)
        return replace(work, bytes=size, bytes_sent=sent, groups=groups, splits=splits)

    def _split(self, splits: IntArray) -> IntArray:
        """Rows that every rank sends to every rank, of those that take part."""
        key = id(splits), self.stages
        if key not in self._splits:
            lifted = splits
            if len(splits) != self._grid.n_ranks:
                apart, context = self._grid.groups("cp"), self._grid.context
                lifted = np.where(apart[:, None] == apart, splits[np.ix_(context, context)], 0)
            if len(self.stages) < self._grid.pp:
                lifted = np.where(self._on_stages[:, None], lifted, 0)
            self._splits[key] = splits, lifted
        return self._splits[key][1]

    def _lowering(self, column: LoweringColumn) -> LoweringColumn:
        index = column.index
        if len(index) == self._grid.n_ranks:
            return column
        return LoweringColumn(column.table, index[self._grid.context])

    def _ring(self, ring: Ring | Matching) -> Ring | Matching:
        if ring not in self._rings:
            stride = self._grid.stride("cp")
            if isinstance(ring, Matching):
                ahead = (ring.to - np.arange(ring.n_ranks))[self._grid.context] * stride
                self._rings[ring] = Matching(ring.name, np.arange(self._grid.n_ranks) + ahead)
            else:
                self._rings[ring] = Ring(ring.name, ring.step * stride, ring.size, self._grid.n_ranks)
        return self._rings[ring]

    def _option(self, value: object) -> object:
        if isinstance(value, LoweringColumn):
            return self._lowering(value)
        if isinstance(value, Layout):
            return self._layout(value)
        if isinstance(value, np.ndarray) and value.ndim == 1 and len(value) == self._grid.cp:
            return value[self._grid.context]
        return value

    def _column(self, column: Column) -> Column:
        if isinstance(column, int) or len(column) == self._grid.n_ranks:
            return column
        return np.asarray(column[self._grid.context])

    def _own(self, column: Column) -> Column:
        """Nothing on other pipeline stages."""
        return column if len(self.stages) == self._grid.pp else np.where(self._on_stages, column, 0)

    @property
    def _on_stages(self) -> NDArray[np.bool_]:
        if self.stages not in self._members:
            self._members[self.stages] = np.isin(self._stage_of, self.stages)
        return self._members[self.stages]

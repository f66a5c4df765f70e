"""All ranks in one process, one after the other: shows whether the mathematics is right.

Communication is an assignment: what a rank receives is what its source has. Everything is float64, whatever dtype the
Program says, so that a schedule's result differs from dense attention by rounding only. Buffers are made when the
Program allocates them, filled with NaN, and dropped when it releases them: what is read too late or never written
shows.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from cost_models.masks import KernelCall
from simulator.program.operations import Buffer, Exchange, Operation
from simulator.program.program import Program
from validators.dense import dense_backward, dense_forward, row_dot
from validators.executors.local import LocalOperations
from validators.executors.shards import Globals, assemble, cut, draw_weight, shape_of


class DenseKernel:
    """Attention of a segment by the dense formulas."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, call: KernelCall) -> tuple[Tensor, Tensor]:
        """(o, lse)."""
        return dense_forward(q, k, v, window(call, q.shape[1], k.shape[1]))

    def backward(
        self, q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor, row: Tensor, call: KernelCall, *, delta: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv)."""
        rows = row if delta else row_dot(do, row)
        return dense_backward(q, k, v, do, lse, rows, window(call, q.shape[1], k.shape[1]))


def window(call: KernelCall, rows: int, columns: int) -> Tensor:
    """Which keys a row of a segment sees: flash-attention's window at the bottom right corner."""
    apart = torch.arange(columns)[None, :] - torch.arange(rows)[:, None] - (columns - rows)
    allowed = torch.ones(rows, columns, dtype=torch.bool)
    if call.left is not None:
        allowed &= apart >= -call.left
    if call.right is not None:
        allowed &= apart <= call.right
    return allowed


class Loopback:
    """A sink that executes what it receives.

    Parameters
    ----------
    program : for its ranks and workload.
    inputs : whole tensors by the name of the input buffer.

    Attributes
    ----------
    results : whole outputs by name, after the Program has finished.
    shards : each rank's part of them.
    selected : indices that APB's selection chose, by rank.
    """

    def __init__(self, program: Program, inputs: Globals) -> None:
        self._setup, self._inputs = program.setup, inputs
        self._local = LocalOperations(DenseKernel())
        self._tensors: dict[int, list[Tensor]] = {}
        self.results: Globals = {}
        self.shards: dict[str, list[Tensor]] = {}
        self.selected = self._local.selected

    def allocate(self, buffer: Buffer) -> None:
        """Make the shards; inputs are cut from the whole tensors."""
        ranks = range(self._setup.n_ranks)
        if not buffer.is_input:
            made = [torch.full(shape_of(buffer, rank), torch.nan, dtype=torch.float64) for rank in ranks]
        elif buffer.layout is None:
            made = [draw_weight(buffer, torch.float64) for _ in ranks]
        else:
            made = [cut(self._inputs[buffer.name], buffer, rank) for rank in ranks]
        self._tensors[buffer.id] = made

    def release(self, buffer: Buffer) -> None:
        """Drop the shards."""
        del self._tensors[buffer.id]

    def operation(self, operation: Operation) -> None:
        """Do it, on every rank that takes part."""
        reads = [self._tensors[buffer.id] for buffer in operation.reads]
        writes = [self._tensors[buffer.id] for buffer in operation.writes]
        if operation.category == "communication":
            self._communicate(operation, reads, writes)
            return
        for rank in range(self._setup.n_ranks):
            if operation.ranks is None or operation.ranks[rank]:
                mine, ours = [each[rank] for each in reads], [each[rank] for each in writes]
                self._local.perform(operation, rank, mine, ours)

    def finish(self, outputs: dict[str, Buffer]) -> None:
        """Put the outputs together."""
        for name, buffer in outputs.items():
            self.shards[name] = self._tensors[buffer.id]
            self.results[name] = assemble(buffer, self._tensors[buffer.id], self._setup)

    def _communicate(self, operation: Operation, reads: list[list[Tensor]], writes: list[list[Tensor]]) -> None:
        ranks = range(self._setup.n_ranks)
        for sent, received in zip(reads, writes, strict=True):
            for rank in ranks:
                if operation.kind == "exchange":
                    received[rank].copy_(sent[cast(Exchange, operation.work).ring.source[rank]])
                elif operation.kind == "all_gather":
                    received[rank].view(-1).copy_(torch.cat([each.reshape(-1) for each in sent]))
                else:
                    slices = [each.reshape(len(ranks), -1)[rank] for each in sent]
                    received[rank].view(-1).copy_(torch.cat(slices))


def execute(program: Program, inputs: Globals) -> Loopback:
    """Run a Program on whole inputs."""
    loopback = Loopback(program, inputs)
    program.replay(loopback)
    return loopback

"""All ranks in one process, one after the other: shows whether the mathematics is right.

Communication is an assignment: what a rank receives is what its source has. By default everything is float64, whatever
dtype the Program says, so that a schedule's result differs from dense attention by rounding only; with a GPU's kernels
and the Program's dtypes it shows what these do to it. New buffers are full of NaN, and are dropped when the Program
releases them: what is read too late or never written shows.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from simulator.program.operations import Buffer, Operation
from simulator.program.program import Program
from validators.executors.delivery import deliver
from validators.executors.kinds import perform
from validators.executors.local import AttentionKernel, LocalOperations, Merge
from validators.executors.shards import Globals, assemble, load_shard
from validators.executors.store import Store
from validators.kernels.dense import DenseKernel


class Loopback:
    """A sink that executes what it receives.

    Parameters
    ----------
    program : for its ranks and workload.
    inputs : whole tensors by the name of the input buffer.
    kernel : does attention.
    device : where tensors are.
    dtype : of all tensors; None for those that the Program says.
    merge : of partial results, the plain formula if None.

    Attributes
    ----------
    results : whole outputs by name, of those that are sequences, after the Program has finished.
    shards, buffers : each rank's part of every output, and what it is a part of.
    """

    def __init__(
        self,
        program: Program,
        inputs: Globals,
        kernel: AttentionKernel | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = torch.float64,
        merge: Merge | None = None,
    ) -> None:
        self._setup, self._inputs = program.setup, inputs
        stores = [
            Store(rank, torch.device(device), partial(self._input, rank), dtype=dtype, poison=True)
            for rank in range(self._setup.n_ranks)
        ]
        self._ranks = [LocalOperations(kernel or DenseKernel(), store, merge) for store in stores]
        self.results: Globals = {}
        self.shards: dict[str, list[Tensor]] = {}
        self.buffers: dict[str, Buffer] = {}

    @property
    def selected(self) -> dict[int, Tensor]:
        """Indices that a selection by score chose, by rank: APB's keys, or MInference's columns and then diagonals."""
        return {local.store.rank: local.selected for local in self._ranks if local.selected is not None}

    def allocate(self, buffer: Buffer) -> None:
        """Every rank gets its shard."""
        for local in self._ranks:
            local.store.allocate(buffer)

    def release(self, buffer: Buffer) -> None:
        """Drop the shards."""
        for local in self._ranks:
            local.store.release(buffer)

    def operation(self, operation: Operation) -> None:
        """Do it, on every rank that takes part."""
        if operation.communicates:
            self._communicate(operation)
            return
        for rank, local in enumerate(self._ranks):
            if operation.ranks is None or operation.ranks[rank]:
                perform(local, operation)

    def finish(self, outputs: dict[str, Buffer]) -> None:
        """Put the outputs together."""
        for name, buffer in outputs.items():
            self.shards[name] = self._shards(buffer)
            self.buffers[name] = buffer
            if buffer.layout is not None and len(buffer.layout.owner) == self._setup.n_ranks:
                self.results[name] = assemble(buffer, self.shards[name], self._setup)

    def _input(self, rank: int, buffer: Buffer, dtype: torch.dtype) -> Tensor:
        return load_shard(self._inputs, buffer, rank, dtype).to(self._ranks[rank].store.place_of(buffer))

    def _shards(self, buffer: Buffer) -> list[Tensor]:
        return [local.store.whole(buffer) for local in self._ranks]

    def _communicate(self, operation: Operation) -> None:
        for source, target in zip(operation.reads, operation.writes, strict=True):
            deliver(operation, self._shards(source), self._shards(target))


def execute(program: Program, inputs: Globals) -> Loopback:
    """Run a Program on whole inputs, in float64."""
    loopback = Loopback(program, inputs)
    program.replay(loopback)
    return loopback

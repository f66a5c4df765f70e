"""The recorded Program run by real processes: every process is one rank, and replays the Program for itself.

What is issued is what was simulated: the same operations on the same lanes, with the same waits (`waits`), memory taken
and given back in the same order (`store`). On CPUs over gloo it shows that the communication is right, on GPUs over
NCCL that the prediction is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from simulator.program.operations import PROPAGATION, Buffer, Operation
from simulator.program.program import Program
from validators.executors.communication import Communication
from validators.executors.kinds import perform
from validators.executors.local import AttentionKernel, LocalOperations, Merge
from validators.executors.moving import copy_all
from validators.executors.shards import Globals, load_shard
from validators.executors.store import Store
from validators.executors.waits import Waits
from validators.executors.world import World

LoadInput = Callable[[Buffer, torch.dtype], Tensor]


class RankExecutor:
    """A sink that runs one rank's part of a Program, for as many calls as wanted.

    Parameters
    ----------
    world : this process among all.
    program : what runs; all ranks have the same.
    kernel : does attention.
    load_input : a shard of this rank, in a dtype; called once per input buffer, before anything is timed.
    dtype : of all tensors, None for those that the Program says.
    merge : of partial results, the plain formula if None.
    poison : fill what is new with NaN (never in a timed call).

    Attributes
    ----------
    outputs : this rank's shards of the results of the last call.
    issued_ns : time in which the last call was issued: on CPUs, in which it ran.
    """

    def __init__(
        self,
        world: World,
        program: Program,
        kernel: AttentionKernel,
        load_input: LoadInput,
        *,
        dtype: torch.dtype | None = None,
        merge: Merge | None = None,
        poison: bool = False,
    ) -> None:
        self._world, self._program = world, program
        self._communication = Communication(world)
        self._groups = {
            operation.id: self._communication.prepare(operation)
            for operation in program.operations
            if operation.communicates
        }
        self._load_input = load_input
        self._inputs: dict[int, Tensor] = {}
        self._store = Store(world.rank, world.device, self._input, dtype=dtype, poison=poison)
        self._local = LocalOperations(kernel, self._store, merge)
        self._waits = Waits()
        self.outputs: dict[str, Tensor] = {}
        self.issued_ns = 0
        self.output_buffers: dict[str, Buffer] = {}
        for verb, subject in program.events:
            if verb == "allocate" and isinstance(subject, Buffer) and subject.is_input:
                self._store.allocate(subject)

    @property
    def selected(self) -> Tensor | None:
        """Indices that APB's selection chose."""
        return self._local.selected

    def call(self, *, recorded: bool = False) -> int:
        """Run the Program once, alone; nanoseconds from the agreed start until this rank's last operation ended."""
        self.forget()
        self._waits = Waits()
        lanes = self._world.lanes
        lanes.recorded = recorded
        lanes.begin(self._world.agree_on_start())
        began_ns = time.monotonic_ns()
        self._program.replay(self)
        self.issued_ns = time.monotonic_ns() - began_ns
        return lanes.end()

    def forget(self) -> None:
        """Drop the results of the last call, and all else but the inputs."""
        self.outputs = {}
        self._store.clear()

    @property
    def input_bytes(self) -> int:
        """Memory of this rank's inputs on its device, which are there before a call."""
        here = [tensor for tensor in self._inputs.values() if tensor.device.type == self._world.device.type]
        return sum(tensor.numel() * tensor.element_size() for tensor in here)

    @property
    def spans_ns(self) -> dict[int, tuple[int, int]]:
        """When each operation of the last recorded call ran."""
        return dict(self._world.lanes.spans_ns)

    # -- as a sink ---------------------------------------------------------------------------------------------------

    def allocate(self, buffer: Buffer) -> None:
        """The buffer exists from now on."""
        self._store.allocate(buffer)

    def release(self, buffer: Buffer) -> None:
        """Give memory back; lanes that may still use it are told to the allocator."""
        held, waits = self._store.release(buffer), self._waits.release(buffer)
        if waits and held is not None and not buffer.on_host:
            tensors = [held] if isinstance(held, Tensor) else [piece.tensor for piece in held]
            self._world.lanes.keep(tensors, waits)

    def operation(self, operation: Operation) -> None:
        """Issue it, if this rank takes part."""
        if operation.kind == PROPAGATION or operation.ranks is not None and not operation.ranks[self._world.rank]:
            return
        waits = self._waits.issue(operation)
        lanes = self._world.lanes
        if operation.category != "copy" and not operation.communicates:
            lanes.compute(operation.id, waits, partial(perform, self._local, operation))
            return
        if operation.category == "copy":
            pairs = list(zip(self._local.reads(operation), self._local.writes(operation), strict=True))
            lanes.communicate(operation.id, operation.lane, waits, partial(copy_all, pairs))
            return
        reads = [_contiguous(self._store.whole(buffer)) for buffer in operation.reads]
        writes = [self._store.whole(buffer) for buffer in operation.writes]
        group = self._groups[operation.id]
        assert group is not None
        call = partial(self._communication.perform, operation, group, reads, writes)
        lanes.communicate(operation.id, operation.lane, waits, call)

    def finish(self, outputs: dict[str, Buffer]) -> None:
        """Keep the results."""
        self.outputs = {name: self._store.whole(buffer) for name, buffer in outputs.items()}
        self.output_buffers = outputs

    def _input(self, buffer: Buffer, dtype: torch.dtype) -> Tensor:
        if buffer.id not in self._inputs:
            loaded = self._load_input(buffer, dtype).to(self._store.place_of(buffer)).contiguous()
            pinned = buffer.on_host and self._world.device.type == "cuda"
            self._inputs[buffer.id] = loaded.pin_memory() if pinned else loaded
        return self._inputs[buffer.id]


def _contiguous(tensor: Tensor) -> Tensor:
    """What the backends need; a copy only where a kernel returned something else."""
    return tensor if tensor.is_contiguous() else tensor.contiguous()


def cut_input(inputs: Globals, rank: int) -> LoadInput:
    """A loader that cuts a rank's shards from whole tensors."""
    return lambda buffer, dtype: load_shard(inputs, buffer, rank, dtype)

"""The recorded Program run by real processes: every process is one rank, and replays the Program for itself.

What is issued is what was simulated: the same operations on the same lanes, with the same waits (`waits`), memory taken
and given back in the same order (`store`). On CPUs over gloo it shows that the communication is right, on GPUs over
NCCL that the prediction is.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from simulator.program.operations import Buffer
from simulator.program.program import Program
from validators.executors.communication import Communication
from validators.executors.issuing import Issues
from validators.executors.local import AttentionKernel, LocalOperations, Merge
from validators.executors.shards import Globals, load_shard
from validators.executors.store import Store
from validators.executors.world import World

LoadInput = Callable[[Buffer, torch.dtype], Tensor]


class RankExecutor:
    """Runs one rank's part of a Program, for as many calls as wanted.

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
        self._world, self._program, self._load_input = world, program, load_input
        self._inputs: dict[int, Tensor] = {}
        self._store = Store(world.rank, world.device, self._input, dtype=dtype, poison=poison)
        self._local = LocalOperations(kernel, self._store, merge)
        self._issues = Issues(program, self._local, world.lanes, Communication(world))
        self._at_first: dict[int, Tensor | None] = {}
        self.load()
        self.outputs: dict[str, Tensor] = {}
        self.issued_ns = 0
        self.output_buffers: dict[str, Buffer] = {}

    def load(self) -> None:
        """Have the inputs on the device, which they are from the beginning on until `unload`."""
        self._at_first = {buffer.id: self._held_at_first(buffer) for buffer in allocated(self._program)}

    def unload(self) -> None:
        """Drop the inputs too: no call before they are loaded again."""
        self.forget()
        self._at_first = {}
        self._inputs.clear()

    def _held_at_first(self, buffer: Buffer) -> Tensor | None:
        return self._input(buffer, self._store.dtype_of(buffer)) if buffer.is_input else None

    @property
    def selected(self) -> Tensor | None:
        """Indices that APB's selection chose."""
        return self._local.selected

    def call(self, *, recorded: bool = False) -> int:
        """Run the Program once, alone; nanoseconds from the agreed start until this rank's last operation ended."""
        self.forget()
        self._store.begin(self._at_first)
        lanes = self._world.lanes
        lanes.recorded = recorded
        lanes.begin(self._world.agree_on_start())
        began_ns = time.monotonic_ns()
        for issue in self._issues.calls:
            issue()
        self.issued_ns = time.monotonic_ns() - began_ns
        self.outputs = {name: self._store.whole(buffer) for name, buffer in self._program.outputs.items()}
        self.output_buffers = self._program.outputs
        return lanes.end()

    def launches(self, operation: int) -> int:
        """Kernel calls of an attention operation, by its number, of the calls made so far."""
        return len(self._local.launches.get(operation, ()))

    def issue_times_ns(self) -> list[tuple[int, int]]:
        """Run the Program once, as `call` does; of each operation its number, and for how long the host issued it.

        What goes back before an operation counts as part of it.
        """
        self.forget()
        self._store.begin(self._at_first)
        lanes, times, clock = self._world.lanes, list[tuple[int, int]](), time.perf_counter_ns
        lanes.recorded = False
        lanes.begin(self._world.agree_on_start())
        before_ns = clock()
        for issue, number in zip(self._issues.calls, self._issues.operations, strict=True):
            issue()
            if number is not None:
                now_ns = clock()
                times.append((number, now_ns - before_ns))
                before_ns = now_ns
        lanes.end()
        self.forget()
        return times

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

    def _input(self, buffer: Buffer, dtype: torch.dtype) -> Tensor:
        if buffer.id not in self._inputs:
            loaded = self._load_input(buffer, dtype).to(self._store.place_of(buffer)).contiguous()
            pinned = buffer.on_host and self._world.device.type == "cuda"
            self._inputs[buffer.id] = loaded.pin_memory() if pinned else loaded
        return self._inputs[buffer.id]


def allocated(program: Program) -> list[Buffer]:
    """The buffers of a Program."""
    return [subject for verb, subject in program.events if verb == "allocate" and isinstance(subject, Buffer)]


def cut_input(inputs: Globals, rank: int) -> LoadInput:
    """A loader that cuts a rank's shards from whole tensors."""
    return lambda buffer, dtype: load_shard(inputs, buffer, rank, dtype)

"""A peer's implementation called as our executor is: from an agreed start, until its last operation has ended."""

from __future__ import annotations

from torch import Tensor

from simulator.program.operations import Buffer
from simulator.program.program import Program
from simulator.schedules import Schedule
from validators.executors.distributed import LoadInput
from validators.executors.store import DTYPES
from validators.executors.world import World
from validators.peers.adapters import Results, build_peer


class PeerExecutor:
    """One rank of a peer.

    Parameters
    ----------
    world : this process among all.
    schedule : the peer, by our description of it.
    program : of that description: says which tokens a rank holds, and whether there is a backward.
    load_input : a shard of this rank.

    Attributes
    ----------
    outputs : this rank's shards of what the peer returns, which need not have an LSE.
    spans_ns : nothing; the operations are the peer's own.
    """

    def __init__(self, world: World, schedule: Schedule, program: Program, load_input: LoadInput) -> None:
        self._world = world
        self._attend = build_peer(world, schedule, causal=str(program.setup.workload.mask) == "causal")
        dtype = DTYPES[program.setup.workload.dtype]
        self._inputs: dict[str, Tensor] = {
            subject.name: load_input(subject, dtype).to(world.device).contiguous()
            for verb, subject in program.events
            if verb == "allocate" and isinstance(subject, Buffer) and subject.is_input
        }
        self.outputs: Results = {}
        self.output_buffers = dict(program.outputs)
        self.spans_ns: dict[int, tuple[int, int]] = {}

    def call(self, *, recorded: bool = False) -> int:
        """Run it once, alone; nanoseconds until this rank was done."""
        self.forget()
        lanes = self._world.lanes
        lanes.recorded = False
        lanes.begin(self._world.agree_on_start())
        q, k, v = (self._inputs[name] for name in "qkv")
        lanes.compute(0, (), lambda: self.outputs.update(self._attend(q, k, v, self._inputs.get("do"))))
        return lanes.end()

    def forget(self) -> None:
        """Drop the results of the last call."""
        self.outputs = {}

    @property
    def input_bytes(self) -> int:
        """Memory of this rank's inputs."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._inputs.values())

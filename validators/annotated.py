"""The executor under PyTorch's profiler: every operation is issued within an annotation that says which it is.

`traces.kineto.annotations` reads them back, so that a recorded run is compared with a simulated one operation by
operation, whatever kernels it launched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch.profiler import record_function

from cost_models.masks import parse_mask
from cost_models.workload import AttentionWorkload
from simulator.program.program import Program
from simulator.program.setup import Setup
from simulator.recording import build_program
from simulator.schedules import PEERS, parse_schedule
from traces.kineto.annotations import Named, annotation
from validators.executors.distributed import RankExecutor, cut_input
from validators.executors.lanes import Call, Lanes
from validators.executors.shards import draw_inputs
from validators.executors.waits import Wait
from validators.executors.world import World
from validators.kernels import build_attention_kernel
from validators.peers.executor import PeerExecutor


class AnnotatedLanes:
    """Lanes on which every call is annotated."""

    def __init__(self, lanes: Lanes, program: Program) -> None:
        self._lanes = lanes
        self._texts = {
            op.id: annotation(Named(op.id, op.category, op.kind, op.phase, op.step)) for op in program.operations
        }
        self.spans_ns = lanes.spans_ns
        self.recorded = False

    def begin(self, start_ns: int) -> None:
        """As the lanes themselves."""
        self._lanes.begin(start_ns)

    def compute(self, number: int, waits: Sequence[Wait], call: Call) -> None:
        """Annotated."""
        self._lanes.compute(number, waits, self._annotated(number, call))

    def communicate(self, number: int, lane: str, waits: Sequence[Wait], call: Call) -> None:
        """Annotated, where it is issued: on a CPU that is the lane's thread."""
        self._lanes.communicate(number, lane, waits, self._annotated(number, call))

    def keep(self, tensors: Sequence[object], waits: Sequence[Wait]) -> None:
        """As the lanes themselves."""
        self._lanes.keep(tensors, waits)

    def end(self) -> int:
        """As the lanes themselves."""
        return self._lanes.end()

    def close(self) -> None:
        """As the lanes themselves."""
        self._lanes.close()

    def _annotated(self, number: int, call: Call) -> Call:
        def annotated() -> None:
            with record_function(self._texts[number]):
                call()

        return annotated


def prepare_call(
    world: World, schedule: str, seq_len: int, heads: int, head_dim: int, pass_: str, mask: str, kernel: str | None
) -> Callable[[], object]:
    """A function that calls a schedule once on this process among all; a peer's operations have no annotations.

    Parameters
    ----------
    seq_len : tokens of the whole sequence.
    kernel : attention kernel; None for cuDNN's on GPUs, PyTorch's own on CPUs.
    """
    on_gpu = world.device.type == "cuda"
    dtype = "bf16" if on_gpu else "fp32"
    workload = AttentionWorkload(1, seq_len, heads, heads, head_dim, head_dim, dtype, parse_mask(mask, seq_len))
    setup = Setup(workload, world.size, world.size)
    parsed = parse_schedule(schedule).resolve(setup)
    program, load = build_program(parsed, setup, pass_), cut_input(draw_inputs(setup, 0), world.rank)
    if parsed.name in PEERS:
        return PeerExecutor(world, parsed, program, load).call
    world.lanes = AnnotatedLanes(world.lanes, program)
    attention = build_attention_kernel(kernel or ("cudnn" if on_gpu else "cpu"))
    return RankExecutor(world, program, attention, load).call

"""What the processes of a recorded run do."""

from __future__ import annotations

from pathlib import Path

from validators.annotated import prepare_call
from validators.executors.world import World
from validators.record_trace import record, record_step
from validators.trace_workloads import Case


def record_ring(world: World, folder: Path) -> str:
    """Record one call of a ring; the name of this rank's file."""
    call = prepare_call(world, "ring", 128, 2, 16, "forward", "causal", None)
    case = Case(world.device, world.rank, world.size, 64, 2, 16)
    return record_step(folder, case, call, 1).name


def record_context_parallel(world: World, folder: Path) -> str:
    """Record two steps of PyTorch's context parallelism; the name of this rank's file."""
    return record(folder, Case(world.device, world.rank, world.size, 64, 2, 16), "context-parallel", 2).name

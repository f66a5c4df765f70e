"""What is measured, run inside the fresh process: ``python -m benchmarks.cases NAME``.

The rings are causal zigzag rings, forward and backward, of an 8-heads-per-KV-head attention on DGX H100 nodes: pairs
per step and rank are derived from the layouts, prices differ by rank, and memory is followed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.measure import own_peak_rss_bytes
from cost_models.hardware import HardwareProfile, load_hardware
from cost_models.masks import parse_mask
from cost_models.topology import ClusterTopology, load_topology
from cost_models.workload import AttentionWorkload
from simulator.costing import CostModel
from simulator.engines.des import DiscreteEvents
from simulator.engines.maxplus import MaxPlus
from simulator.engines.memory import Memory
from simulator.engines.traffic import Traffic
from simulator.fanout import Fanout
from simulator.program.operations import Operation
from simulator.program.program import Program
from simulator.program.setup import Setup
from simulator.program.tape import Ignore
from simulator.recording import record_program
from simulator.schedules import parse_schedule

TOKENS_PER_RANK = 128
GPU = "h100-sxm"
KERNEL = "flash3"


def ring_setup(ranks: int) -> Setup:
    """A ring's workload."""
    seq_len = ranks * TOKENS_PER_RANK
    workload = AttentionWorkload(1, seq_len, 32, 4, 128, 128, "bf16", parse_mask("causal", seq_len))
    return Setup(workload, ranks, 8)


def cluster(ranks: int, topology: str = "dgx-h100") -> tuple[ClusterTopology, HardwareProfile]:
    """Nodes with so many ranks, and their GPU."""
    return load_topology(topology, ranks), load_hardware(GPU)


def maxplus(ranks: int, schedule: str = "ring") -> dict[str, Any]:
    """Record, price and run a schedule; pairs and memory peak included. Costs and topology are new."""
    setup, (topology, profile) = ring_setup(ranks), cluster(ranks)
    before = own_peak_rss_bytes()
    begin = time.perf_counter()
    memory, traffic = Memory(ranks), Traffic(setup)
    engine = MaxPlus(ranks, CostModel(topology, profile, KERNEL))
    counter = _Counter()
    record_program(parse_schedule(schedule), setup, "both", Fanout(memory, traffic, engine, counter))
    makespan_ns, peak = engine.makespan_ns, int(memory.peak_bytes.max())
    seconds = time.perf_counter() - begin
    return {
        "seconds": seconds, "rank_operations": counter.operations * ranks, "makespan_ns": makespan_ns,
        "pairs": traffic.pairs, "peak_bytes": peak, "rss_before_bytes": before,
    }  # fmt: skip


def des(ranks: int, schedule: str = "ring") -> dict[str, Any]:
    """Run a recorded schedule on SimPy, nothing shared."""
    setup, (topology, profile) = ring_setup(ranks), cluster(ranks)
    program = Program(setup)
    record_program(parse_schedule(schedule), setup, "both", program)
    costs = CostModel(topology, profile, KERNEL)
    begin = time.perf_counter()
    makespan_ns = DiscreteEvents(program, costs).run()
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "rank_operations": len(program.operations) * ranks, "makespan_ns": makespan_ns}


class _Counter(Ignore):
    """A sink that counts operations."""

    def __init__(self) -> None:
        self.operations = 0

    def operation(self, operation: Operation) -> None:
        """Count it."""
        self.operations += 1


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "maxplus-1024": lambda: maxplus(1024),
    "maxplus-16384": lambda: maxplus(16384),
    "des-256": lambda: des(256),
    "des-1024": lambda: des(1024),
}


def main(name: str) -> None:
    """Run a case and report."""
    result = CASES[name]()
    print(json.dumps({**result, "peak_rss_bytes": own_peak_rss_bytes()}))


if __name__ == "__main__":
    main(sys.argv[1])

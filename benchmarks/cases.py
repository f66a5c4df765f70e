"""What is measured, run inside the fresh process: ``python -m benchmarks.cases NAME``.

The rings are causal zigzag rings, forward and backward, of an 8-heads-per-KV-head attention on DGX H100 nodes: pairs
per step and rank are derived from the layouts, prices differ by rank, and memory is followed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import simpy

from benchmarks.measure import own_peak_rss_bytes
from cost_models.hardware import HardwareProfile, load_hardware
from cost_models.masks import parse_mask
from cost_models.network import exchange_demands
from cost_models.topology import ClusterTopology, load_topology
from cost_models.workload import AttentionWorkload
from simulator.costing import CostModel
from simulator.engines.des import DiscreteEvents, Links
from simulator.engines.flows import Ask
from simulator.engines.maxplus import MaxPlus
from simulator.engines.memory import Memory
from simulator.engines.sharing import Sharing, narrowest_links
from simulator.engines.traffic import Traffic
from simulator.fanout import Fanout
from simulator.program.operations import Exchange, Operation
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
    begin = time.process_time()
    memory, traffic = Memory(ranks), Traffic(setup)
    engine = MaxPlus(ranks, CostModel(topology, profile, KERNEL))
    counter = _Counter()
    record_program(parse_schedule(schedule), setup, "both", Fanout(memory, traffic, engine, counter))
    makespan_ns, peak = engine.makespan_ns, int(memory.peak_bytes.max())
    seconds = time.process_time() - begin
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
    begin = time.process_time()
    makespan_ns = DiscreteEvents(program, costs).run()
    seconds = time.process_time() - begin
    return {"seconds": seconds, "rank_operations": len(program.operations) * ranks, "makespan_ns": makespan_ns}


FAT_TREE = "dgx-h100:fabric=fat-tree,oversubscription=4,nodes-per-leaf=1"


def synchronous_flows(ranks: int = 256, steps: int = 100, size: int = 2**24) -> dict[str, Any]:
    """Rings between the nodes of an oversubscribed fat tree: all ranks send at once, eight share a leaf's link."""
    setup, (topology, profile) = ring_setup(ranks), cluster(ranks, FAT_TREE)
    program, ring = Program(setup), setup.outer_ring()
    for step in range(steps):
        program.operation(Operation(step, "exchange", ring.lane, "forward", step, (), (), Exchange(ring, size)))
    costs = CostModel(topology, profile, KERNEL)
    begin = time.process_time()
    sharing = Sharing.find(program, costs, topology.link_capacities_bytes_per_s.tolist())
    engine = DiscreteEvents(program, costs, sharing=sharing)
    makespan_ns = engine.run()
    seconds = time.process_time() - begin
    assert sum(ask is not None for ask in sharing.asks(program.operations[0])) == ranks
    return {"seconds": seconds, "flow_starts": ranks * steps, "makespan_ns": makespan_ns}


def random_flows(ranks: int = 256, flows: int = 4000, load: float = 0.7, size: float = 2.0**26) -> dict[str, Any]:
    """Flows between random ranks at random times (Poisson), so many that the leaves' links are used to ``load``."""
    topology, profile = cluster(ranks, FAT_TREE)
    rng = np.random.default_rng(0)
    src = rng.integers(0, ranks, flows)
    dst = (src + rng.integers(1, ranks, flows)) % ranks
    sizes = rng.exponential(size, flows)
    demands = exchange_demands(topology, profile, src, dst, sizes)
    spine = sum(topology.numbering.leaf_bytes_per_s) * load
    start_ns = np.cumsum(rng.exponential(size / spine * 1e9, flows)).astype(np.int64).tolist()
    capacities = topology.link_capacities_bytes_per_s.tolist()
    kept = set(narrowest_links(demands, capacities))
    asks = [
        Ask(
            round(d.moving_s * 1e9), round(d.overhead_s * 1e9), d.ceiling_bytes_per_s,
            tuple(each for each in zip(d.links, d.weights, strict=True) if each[0] in kept),
        )
        for d in demands if d is not None
    ]  # fmt: skip
    env = simpy.Environment(initial_time=0)
    links = Links(env, capacities)
    under_way: list[int] = []

    def arrivals() -> Generator[simpy.Event, None, None]:
        for ask, at in zip(asks, start_ns, strict=True):
            if at > env.now:
                yield env.timeout(at - env.now)
            links.send(ask)
            under_way.append(links.network.under_way)

    env.process(arrivals())
    begin = time.process_time()
    env.run()
    seconds = time.process_time() - begin
    return {"seconds": seconds, "flow_starts": flows, "mean_under_way": float(np.mean(under_way))}


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
    "flows-synchronous": synchronous_flows,
    "flows-random": random_flows,
}


def main(name: str) -> None:
    """Run a case and report."""
    result = CASES[name]()
    print(json.dumps({**result, "peak_rss_bytes": own_peak_rss_bytes()}))


if __name__ == "__main__":
    main(sys.argv[1])

"""Random Programs with random costs, and the rules of waiting evaluated one rank and operation at a time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from simulator.program.operations import (
    COMPUTE,
    HOST,
    SYNCHRONIZE,
    Buffer,
    Collective,
    Column,
    Elementwise,
    Exchange,
    Operation,
    Work,
)
from simulator.program.program import Program
from simulator.program.setup import Setup
from tests.simulator.workloads import small_setup

Times = dict[tuple[int, int], tuple[int, int]]


def random_program(seed: int, *, host_waits: bool = False) -> Program:
    """Rings and collectives on several lanes, in-place updates, ranks that take no part; hosts that wait."""
    rng = np.random.default_rng(seed)
    nodes, per_node = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    setup = small_setup(nodes * per_node, ranks_per_node=per_node)
    buffers = [Buffer(i, f"b{i}", 1, 4, 1, 1, "fp32", 16) for i in range(int(rng.integers(2, 7)))]
    program = Program(setup)
    for buffer in buffers:
        program.allocate(buffer)
    for number in range(int(rng.integers(1, 40))):
        waits = host_waits and rng.random() < 0.2
        program.operation((_host_wait if waits else _random_operation)(rng, number, setup, buffers))
    return program


def _host_wait(rng: np.random.Generator, number: int, setup: Setup, buffers: list[Buffer]) -> Operation:
    """Some hosts, or all, wait for the compute lane and for what has written some buffers."""
    reads = tuple(buffers[i] for i in rng.permutation(len(buffers))[: int(rng.integers(0, 3))])
    ranks = rng.random(setup.n_ranks) < 0.6 if rng.random() < 0.5 else None
    return Operation(number, SYNCHRONIZE, HOST, "host", number, reads, (), Elementwise("copy", 0, 0), ranks)


def _random_operation(rng: np.random.Generator, number: int, setup: Setup, buffers: list[Buffer]) -> Operation:
    inner, outer = setup.inner_ring(), setup.outer_ring()
    choice = rng.integers(0, 6)
    kind, lane, ranks = "copy", COMPUTE, None
    work: Work = Elementwise("copy", 1, 1)
    if choice == 0:
        ring = [setup.flat_ring(), inner, outer][int(rng.integers(0, 3))]
        kind, lane, work = "exchange", ring.lane, Exchange(ring, 16)
    elif choice == 1:
        groups = None if rng.random() < 0.5 else np.arange(setup.n_ranks) // setup.ranks_per_node
        kind, lane, work = "all_gather", "comm:group", Collective("all_gather", 16, 16, groups)
        ranks = rng.random(setup.n_ranks) < 0.7 if rng.random() < 0.3 else None
    elif choice == 2:
        ranks = rng.random(setup.n_ranks) < 0.6
    picked = rng.permutation(len(buffers))[: int(rng.integers(1, 4))]
    split = int(rng.integers(0, len(picked) + 1))
    reads, writes = [buffers[i] for i in picked[:split]], [buffers[i] for i in picked[split:]]
    return Operation(number, kind, lane, "forward", number, tuple(reads), tuple(writes), work, ranks)


class RandomCosts:
    """Costs that differ by rank, or do not, or are zero."""

    def __init__(self, program: Program, seed: int) -> None:
        rng = np.random.default_rng(seed)
        n = program.setup.n_ranks
        self._host = {op.id: _column(rng, n, 40) for op in program.operations}
        self._device = {op.id: _column(rng, n, 100) for op in program.operations}

    def host_ns(self, operation: Operation) -> Column:
        return self._host[operation.id]

    def device_ns(self, operation: Operation) -> Column:
        return self._device[operation.id]


def _column(rng: np.random.Generator, n: int, most: int) -> Column:
    if rng.random() < 0.4:
        return int(rng.integers(0, most)) * int(rng.random() < 0.8)
    return rng.integers(0, most, n)


def evaluate_rules(program: Program, costs: RandomCosts) -> Times:
    """(start, end) of every (operation, rank), by the rules in `simulator.program.tape`, each read off directly."""
    n, operations = program.setup.n_ranks, program.operations
    host = [0] * n
    times: Times = {}
    for operation in operations:
        ready = {}
        for rank in _ranks(operation, n):
            host[rank] += _of(costs.host_ns(operation), rank)
            ready[rank] = max([host[rank], *_waits(operation, rank, operations, times)])
        for rank in ready:
            end = _end(operation, rank, ready, costs)
            times[operation.id, rank] = host[rank] if operation.lane == HOST else ready[rank], end
            host[rank] = end if operation.lane == HOST else host[rank]
    return times


def _waits(operation: Operation, rank: int, operations: list[Operation], times: Times) -> list[int]:
    touched = {buffer.id for buffer in (*operation.reads, *operation.writes)}
    written = {buffer.id for buffer in operation.writes}
    found = []
    for earlier in operations[: operation.id]:
        if (earlier.id, rank) not in times:
            continue
        same_lane = earlier.lane == operation.lane
        issued_before = operation.lane != COMPUTE and earlier.lane == COMPUTE
        wrote = earlier.lane not in (COMPUTE, HOST) and touched & {buffer.id for buffer in earlier.writes}
        was_reading = earlier.lane not in (COMPUTE, HOST) and written & {buffer.id for buffer in earlier.reads}
        if (same_lane and operation.lane != HOST) or issued_before or wrote or was_reading:
            found.append(times[earlier.id, rank][1])
    return found


def _end(operation: Operation, rank: int, ready: Mapping[int, int], costs: RandomCosts) -> int:
    def device(of: int) -> int:
        return _of(costs.device_ns(operation), of)

    work = operation.work
    if isinstance(work, Exchange):
        source = int(work.ring.source[rank])
        arrived = [max(ready[each], ready[int(work.ring.to[each])]) + device(each) for each in (rank, source)]
        return max(arrived)
    if isinstance(work, Collective):
        group = [each for each in ready if work.groups is None or work.groups[each] == work.groups[rank]]
        return max(ready[each] for each in group) + device(rank)
    return ready[rank] + device(rank)


def _ranks(operation: Operation, n: int) -> list[int]:
    return [rank for rank in range(n) if operation.ranks is None or operation.ranks[rank]]


def _of(column: Column, rank: int) -> int:
    return column if isinstance(column, int) else int(column[rank])

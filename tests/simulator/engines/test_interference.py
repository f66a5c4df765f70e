"""Kernels beside communication: fewer SMs and less memory bandwidth, in both engines, as worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from cost_models.hardware import HardwareProfile, load_hardware
from cost_models.topology import load_topology
from simulator.contended import ContendedCosts
from simulator.engines.des import DiscreteEvents
from simulator.engines.rows import Rows
from simulator.engines.sharing import Sharing
from simulator.engines.stretch import TOLERANCE, Stretched
from simulator.program.operations import Buffer, Column, Elementwise, Exchange, Operation
from simulator.program.program import Program
from simulator.recording import build_program
from simulator.schedules import parse_schedule
from tests.simulator.engines.test_sharing import capacities, setup_on
from tests.simulator.workloads import small_setup
from traces.timeline import Timeline


@dataclass
class GivenCosts:
    """Of one kernel (1000 ns) and one exchange (400 ns) of two ranks; memory sustains 1 byte per ns."""

    kernel_traffic: int = 0
    exchange_traffic: int = 0
    exchange_sms: int = 0
    late_ns: int = 0
    memory_bytes_per_s: float = 1e9

    def host_ns(self, operation: Operation) -> Column:
        """Rank 1 issues the first operation late."""
        return np.array([0, self.late_ns]) if operation.id == 0 else 0

    def device_ns(self, operation: Operation) -> Column:
        return 400 if isinstance(operation.work, Exchange) else 1000

    def sms(self, operation: Operation) -> Column:
        return self.exchange_sms if isinstance(operation.work, Exchange) else 0

    def traffic_bytes(self, operation: Operation) -> Column:
        return self.exchange_traffic if isinstance(operation.work, Exchange) else self.kernel_traffic

    def slower_ns(self, operation: Operation, taken: int) -> Column:
        """Half as fast with one SM less."""
        return 1000 * (1 + taken)


def exchange_beside_kernel(ranks: int = 2) -> Program:
    program = Program(small_setup(ranks))
    buffers = [Buffer(i, f"b{i}", 1, 4, 1, 1, "fp32", 16) for i in range(2)]
    ring = program.setup.flat_ring()
    program.operation(Operation(0, "exchange", ring.lane, "forward", 0, (buffers[0],), (), Exchange(ring, 16)))
    program.operation(Operation(1, "copy", "compute", "forward", 0, (), (buffers[1],), Elementwise("copy", 1, 1)))
    return program


def times(timeline: Timeline, rank: int) -> list[tuple[int, int]]:
    """(start, end) of the exchange and of the kernel."""
    rows = [np.flatnonzero((timeline.operation == number) & (timeline.rank == rank))[0] for number in (0, 1)]
    return [(int(timeline.start_ns[row]), int(timeline.end_ns[row])) for row in rows]


def both_engines(program: Program, costs: GivenCosts) -> list[Timeline]:
    by_des, by_maxplus = Rows(program.setup.n_ranks), Rows(program.setup.n_ranks)
    DiscreteEvents(program, costs, by_des, None, costs).run()
    Stretched(program, costs).run(by_maxplus)
    return [by_des.timeline(), by_maxplus.timeline()]


@pytest.mark.parametrize(
    ("costs", "exchange", "kernel"),
    [
        (GivenCosts(), (0, 400), (0, 1000)),
        (GivenCosts(exchange_sms=1), (0, 400), (0, 1200)),  # 400 ns at half speed
        (GivenCosts(kernel_traffic=500, exchange_traffic=200), (0, 400), (0, 1000)),  # memory is just enough
        (GivenCosts(kernel_traffic=1000, exchange_traffic=200), (0, 600), (0, 1200)),  # 600 ns at 2/3 of the speed
        (GivenCosts(kernel_traffic=1000, exchange_traffic=200, exchange_sms=1), (0, 600), (0, 1300)),  # SMs are worse
        (GivenCosts(exchange_sms=1, late_ns=300), (0, 700), (0, 1350)),  # and are held while it waits for its peer
    ],
)  # fmt: skip
def test_as_worked_out_by_hand(costs: GivenCosts, exchange: tuple[int, int], kernel: tuple[int, int]) -> None:
    for timeline in both_engines(exchange_beside_kernel(), costs):
        assert times(timeline, 0) == [pytest.approx(exchange, abs=1), pytest.approx(kernel, abs=1)]


def test_a_transfer_is_as_slow_as_the_slower_end() -> None:
    """Of three ranks in a ring only rank 1 is busy: what it receives from rank 0 is slowed, too."""

    @dataclass
    class OneBusy(GivenCosts):
        def host_ns(self, operation: Operation) -> Column:
            return 0

        def traffic_bytes(self, operation: Operation) -> Column:
            return 200 if isinstance(operation.work, Exchange) else np.array([0, 1000, 0])

    for timeline in both_engines(exchange_beside_kernel(3), OneBusy()):
        assert [times(timeline, rank)[0] for rank in range(3)] == [pytest.approx((0, 600), abs=1)] * 3


@pytest.mark.parametrize("spec", ["ring", "burst:ring=double", "ulysses", "allgather"])
@pytest.mark.parametrize("name", ["dgx-h100", "pcie-8x"])
def test_engines_agree_and_nothing_gets_faster(spec: str, name: str) -> None:
    topology = load_topology(name, 16)
    program = build_program(parse_schedule(spec), setup_on(topology, 2**16))
    costs = ContendedCosts(topology, load_hardware("h100-sxm"), "flash2")
    sharing = replace(Sharing.find(program, costs, capacities(topology)), tight=frozenset(), _asks={})
    alone = DiscreteEvents(program, costs).run()
    by_des = DiscreteEvents(program, costs, None, sharing, costs).run()
    stretched = Stretched(program, costs)
    assert stretched.run().makespan_ns == pytest.approx(by_des, rel=5 * TOLERANCE)
    assert alone <= by_des and stretched.passes < 10


def attention_ns(profile: HardwareProfile) -> list[int]:
    """A forward kernel of flash-attention 2 alone, with 0, 6, ... 60 SMs less."""
    topology = load_topology("dgx-h100", 8)
    costs = ContendedCosts(topology, profile, "flash2")
    program = build_program(parse_schedule("ring:partition=contiguous"), setup_on(topology))
    attention = next(op for op in program.operations if op.kind == "attention_forward")
    return [int(np.max(costs.slower_ns(attention, taken))) for taken in range(0, 66, 6)]


def test_fewer_sms_recount_waves() -> None:
    """A kernel of exactly one wave takes two once an SM is gone."""
    profile = load_hardware("h100-sxm")
    flash2 = profile.kernels["flash2"]
    waves = flash2.model_copy(update={"forward": flash2.forward.model_copy(update={"in_order": False})})
    times_ns = attention_ns(profile.model_copy(update={"kernels": {"flash2": waves}}))
    assert times_ns == sorted(times_ns) and times_ns[0] < times_ns[-1]
    steps = np.diff(times_ns)
    assert (steps > 0.02 * times_ns[0]).any() and (steps < 0.002 * times_ns[0]).any()  # plateaus and jumps


def test_fewer_sms_dispatch_blocks_anew() -> None:
    """Where dispatch is simulated, the last blocks may fall better on fewer SMs; all SMs are the best nevertheless."""
    times_ns = attention_ns(load_hardware("h100-sxm"))
    assert min(times_ns) == times_ns[0] and max(times_ns) == times_ns[-1]
    assert times_ns[-1] > 1.4 * times_ns[0]  # 60 of 132 are taken; blocks that share an SM are each slower

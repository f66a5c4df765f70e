"""Kernels beside communication: fewer SMs and less memory bandwidth, in both engines, as worked out by hand.

Laws: without interference times are those alone; L layers take L times as long; max-plus with the durations found gives
the events' times; more SMs for communication are never faster, where one kernel runs beside one transfer (of several
the next may meet other communication, so that no such law holds).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.hardware import HardwareProfile, load_hardware
from cost_models.hardware.power import PowerTerms
from cost_models.models import ModelShape
from cost_models.topology import load_topology
from simulator.contended import ContendedCosts
from simulator.engines.alike import Alike, find_alike
from simulator.engines.des import DiscreteEvents
from simulator.engines.maxplus import MaxPlus
from simulator.engines.rows import Rows
from simulator.engines.sharing import Sharing
from simulator.engines.stretch import Stretched
from simulator.program.operations import Buffer, Column, Elementwise, Exchange, Operation
from simulator.program.program import Program
from simulator.recording import build_program
from simulator.request import SimulationRequest
from simulator.schedules import parse_schedule
from simulator.simulate import simulate
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
    communication_first: bool = True
    handed_out: float = 1.0
    kernel_issue_ns: int = 0
    left: float = 1.0

    def leaves(self, operation: Operation) -> float:
        """Beside the kernel an exchange keeps so much of its rate."""
        return 1.0 if isinstance(operation.work, Exchange) else self.left

    def host_ns(self, operation: Operation) -> Column:
        """Rank 1 issues the first operation late."""
        return np.array([0, self.late_ns]) if operation.id == 0 else self.kernel_issue_ns

    def device_ns(self, operation: Operation) -> Column:
        return 400 if isinstance(operation.work, Exchange) else 1000

    def sms(self, operation: Operation) -> Column:
        return self.exchange_sms if isinstance(operation.work, Exchange) else 0

    def traffic_bytes(self, operation: Operation) -> Column:
        return self.exchange_traffic if isinstance(operation.work, Exchange) else self.kernel_traffic

    def slower_ns(self, operation: Operation, taken: int) -> Column:
        """Half as fast with one SM less."""
        return 1000 * (1 + taken)

    def handing(self, operation: Operation, rank: int) -> tuple[tuple[float, float], ...]:
        """Until they end, or so long."""
        return ((0.0, self.handed_out),)


def waits(**options: float) -> GivenCosts:
    """Communication that waits for kernels."""
    return GivenCosts(communication_first=False, **options)  # type: ignore[arg-type]


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
    n = program.setup.n_ranks
    by_des, stretched, by_maxplus = Rows(n), Rows(n), Rows(n)
    DiscreteEvents(program, costs, by_des, None, costs).run()
    found = Stretched(program, costs, alike(program, costs))
    found.report(stretched)
    program.replay(MaxPlus(n, found, by_maxplus))
    assert np.array_equal(stretched.timeline().end_ns, by_maxplus.timeline().end_ns)
    return [by_des.timeline(), stretched.timeline()]


def alike(program: Program, costs: Any) -> Alike:
    found = find_alike(program, costs)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("costs", "exchange", "kernel"),
    [
        (GivenCosts(), (0, 400), (0, 1000)),
        (GivenCosts(exchange_sms=1), (0, 400), (0, 1200)),  # 400 ns at half speed
        (GivenCosts(kernel_traffic=500, exchange_traffic=200), (0, 400), (0, 1000)),  # memory is just enough
        (GivenCosts(kernel_traffic=1000, exchange_traffic=200), (0, 600), (0, 1200)),  # 600 ns at 2/3 of the speed
        (GivenCosts(kernel_traffic=1000, exchange_traffic=200, exchange_sms=1), (0, 600), (0, 1300)),  # SMs are worse
        (GivenCosts(exchange_sms=1, late_ns=300), (0, 700), (0, 1350)),  # and are held while it waits for its peer
        (GivenCosts(left=0.5), (0, 800), (0, 1000)),  # channels wait for memory
        (GivenCosts(left=0.2), (0, 1200), (0, 1000)),  # at full rate from the kernel's end
        (GivenCosts(left=0.5, kernel_traffic=1000, exchange_traffic=200), (0, 1200), (0, 1400)),  # and share it
        (waits(exchange_sms=1), (1000, 1400), (0, 1000)),  # blocks are handed out until the kernel ends
        (waits(exchange_sms=1, handed_out=0.7), (700, 1100), (0, 1000)),  # the last blocks have their SMs already
        (waits(exchange_sms=1, handed_out=0.0), (0, 400), (0, 1000)),  # a kernel that leaves SMs free
        (waits(exchange_sms=0), (0, 400), (0, 1000)),  # a copy engine needs no SM
        (waits(exchange_sms=1, kernel_issue_ns=50), (0, 400), (50, 1225)),  # it was there before the kernel
        # the peer's kernel starts later: data move when both ends have their SMs
        (waits(exchange_sms=1, handed_out=0.7, late_ns=300), (700, 1400), (0, 1000)),
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


SCHEDULES = [("ring", 16), ("burst:ring=double", 16), ("ulysses", 16), ("allgather", 16), ("lightseq", 8), ("magi", 8)]


@pytest.mark.parametrize(("spec", "ranks"), SCHEDULES)
@pytest.mark.parametrize("communication_first", [True, False])
def test_alike_ranks_and_maxplus_give_the_times_of_all_ranks(spec: str, ranks: int, communication_first: bool) -> None:
    """To the nanosecond: every rank followed, one of each class, and the recurrence with the durations found."""
    program, costs = scheduled(spec, ranks, communication_first)
    every, once, again = Rows(ranks), Rows(ranks), Rows(ranks)
    by_des = DiscreteEvents(program, costs, every, None, costs).run()
    stretched = Stretched(program, costs, alike(program, costs))
    stretched.report(once)
    program.replay(MaxPlus(ranks, stretched, again))
    assert stretched.makespan_ns == by_des == int(stretched.finish_ns.max())
    assert every.timeline().same_as(once.timeline())
    assert np.array_equal(every.timeline().end_ns, again.timeline().end_ns)
    assert by_des >= DiscreteEvents(program, costs).run(), "nothing gets faster"


@pytest.mark.parametrize(("spec", "ranks"), SCHEDULES)
def test_without_interference_times_are_those_alone(spec: str, ranks: int) -> None:
    """Communication that holds no SMs and moves no memory traffic takes nothing from anyone."""
    program, costs = scheduled(spec, ranks, True, Harmless)
    alone, beside = Rows(ranks), Rows(ranks)
    DiscreteEvents(program, costs, alone).run()
    Stretched(program, costs, alike(program, costs)).report(beside)
    assert alone.timeline().same_as(beside.timeline())


class Harmless(ContendedCosts):
    """No communication takes anything."""

    def sms(self, operation: Operation) -> Column:
        return 0

    def traffic_bytes(self, operation: Operation) -> Column:
        return 0 if operation.category == "communication" else super().traffic_bytes(operation)


def scheduled(
    spec: str, ranks: int, communication_first: bool, costs: type[ContendedCosts] = ContendedCosts
) -> tuple[Program, ContendedCosts]:
    topology, profile = load_topology("dgx-h100", ranks), load_hardware("h100-sxm")
    terms = profile.interference.model_copy(update={"communication_first": communication_first})
    profile = profile.model_copy(update={"interference": terms})
    program = build_program(parse_schedule(spec), setup_on(topology, 2**16))
    return program, costs(topology, profile, "flash2")


def test_shared_links_and_interference_at_once() -> None:
    """Where links are shared both slow a transfer, and neither is forgotten."""
    topology = load_topology("pcie-8x", 16)
    program = build_program(parse_schedule("burst:ring=double"), setup_on(topology, 2**18))
    costs = ContendedCosts(topology, load_hardware("h100-sxm"), "flash2")
    sharing = Sharing.find(program, costs, capacities(topology))
    times = [DiscreteEvents(program, costs, None, links, beside).run()
             for links in (None, sharing) for beside in (None, costs)]  # fmt: skip
    assert times[0] < times[1] < times[3] and times[0] < times[2] < times[3]


@pytest.mark.parametrize("communication_first", [True, False])
def test_a_longer_model_takes_as_much_longer(communication_first: bool) -> None:
    """Every layer after the first takes what the one before took: nothing adds up with length."""
    times = [model_step_s(layers, communication_first, interference=True) for layers in (2, 4, 12)]
    each = (times[1] - times[0]) / 2
    assert times[2] == pytest.approx(times[1] + 8 * each, rel=5e-3)
    alone = [model_step_s(layers, communication_first, interference=False) for layers in (2, 12)]
    assert times[0] / alone[0] == pytest.approx(times[2] / alone[1], rel=0.02) and times[2] > alone[1]


def model_step_s(layers: int, communication_first: bool, *, interference: bool) -> float:
    profile = load_hardware("h100-sxm")
    terms = profile.interference.model_copy(update={"communication_first": communication_first})
    unlimited = profile.gemm.model_copy(
        update={"sustained_loss": 0.0}
    )  # later layers would be slower by the power limit
    shape = ModelShape("layers", layers, 4096, 32, 8, 128, 128, 14336, 32000)
    result = simulate(SimulationRequest(
        model=shape, schedule="ring", layers="model", pass_="step", gpus=8, topology="dgx-h100", seq_len="64k", zero=3,
        hardware=profile.model_copy(update={"interference": terms, "gemm": unlimited, "power": PowerTerms()}),
        interference=interference,
        timeline=False,
        checkpoint="full",
    ))  # fmt: skip
    assert not any("neglected" in warning for warning in result.warnings)
    return result.time_s


@given(st.integers(0, 3), st.integers(0, 1200), st.integers(0, 2000), st.integers(0, 400), st.booleans())
@settings(max_examples=100, deadline=None)
def test_more_sms_for_communication_are_never_faster(
    sms: int, late_ns: int, kernel_traffic: int, exchange_traffic: int, communication_first: bool
) -> None:
    costs = GivenCosts(kernel_traffic, exchange_traffic, sms, late_ns, communication_first=communication_first)
    fewer, more = (both_engines(exchange_beside_kernel(), each)[0].makespan_ns
                   for each in (costs, replace(costs, exchange_sms=sms + 1)))  # fmt: skip
    assert fewer <= more


def test_a_ring_hides_its_hops_behind_one_wave() -> None:
    """A step takes c + max(0, h - d), d of c after the last blocks are handed out, and not max(c, h)."""
    topology, ranks = load_topology("dgx-a100", 8), 8
    profile = load_hardware("a100-80")
    program = build_program(parse_schedule("ring:partition=contiguous,merge=kernel"), setup_on(topology, 2**16))
    costs = ContendedCosts(topology, profile, "flash2")
    rows = Rows(ranks)
    DiscreteEvents(program, costs, rows, None, costs).run()
    timeline = rows.timeline()
    ends = {name: {timeline.operations[number].step: (int(start), int(end)) for number, rank, start, end in
                   zip(timeline.operation, timeline.rank, timeline.start_ns, timeline.end_ns, strict=True)
                   if rank == 7 and timeline.operations[number].kind == name and
                   timeline.operations[number].phase == "forward"}
            for name in ("attention_forward", "exchange")}  # fmt: skip
    attention = next(op for op in program.operations if op.kind == "attention_forward" and op.step == 2)
    ((begin, until),) = costs.handing(attention, 7)
    assert begin == 0 and 0.8 < until < 1
    for step in range(2, 7):
        start, end = ends["attention_forward"][step]
        assert ends["exchange"][step][0] == pytest.approx(start + until * (end - start), abs=2)
        assert ends["attention_forward"][step + 1][0] == max(end, ends["exchange"][step][1])


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

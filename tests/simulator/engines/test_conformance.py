"""Both engines give the same rows, to the nanosecond, and those are what the rules say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.engines.costs import Costs, Scaled
from simulator.engines.des import DiscreteEvents
from simulator.engines.maxplus import MaxPlus
from simulator.engines.rows import Rows
from simulator.program.operations import HOST
from simulator.program.program import Program
from simulator.schedules import parse_schedule
from tests.simulator.engines.random_programs import RandomCosts, evaluate_rules, random_program
from tests.simulator.workloads import small_program, small_setup
from traces.timeline import Timeline

SCHEDULES = [
    ("ring", 4, 4),
    ("ring:partition=contiguous", 5, 5),
    ("ring:partition=striped", 3, 3),
    ("ring:circulate=q", 4, 2),
    ("burst", 6, 6),
    ("burst:ring=double", 8, 4),
    ("burst:ring=double", 8, 2),
    ("ulysses", 4, 4),
    ("ulysses", 8, 4),
    ("flash", 1, 1),
    ("allgather", 4, 2),
    ("allgather:head-group=2", 4, 4),
    ("usp:ulysses=2", 8, 4),
    ("loongtrain:head=2", 8, 4),
    ("ring:partition=document-zigzag", 5, 5),
    ("lightseq", 5, 5),
    ("lightseq", 6, 3),
    ("magi", 6, 3),
    ("magi:transport=native", 6, 3),
    ("hybrid-cp", 8, 4),
    ("tp:version=3", 4, 4),
    ("rsa", 4, 2),
    ("star:anchor=8", 4, 4),
    ("minference:vertical=20,slash=40", 4, 4),
    ("apb:anchor=8,passing=4", 5, 5),
    ("ring", 1, 1),
]


def run_maxplus(program: Program, costs: Costs) -> Timeline:
    rows = Rows(program.setup.n_ranks)
    engine = MaxPlus(program.setup.n_ranks, costs, rows)
    program.replay(engine)
    timeline = rows.timeline()
    assert engine.makespan_ns == device_end_ns(timeline)
    return timeline


def run_des(program: Program, costs: Costs) -> Timeline:
    rows = Rows(program.setup.n_ranks)
    makespan_ns = DiscreteEvents(program, costs, rows).run()
    timeline = rows.timeline()
    assert makespan_ns == device_end_ns(timeline)
    return timeline


def device_end_ns(timeline: Timeline) -> int:
    """When the last row that is not the host's ends."""
    on_device = np.array([lane != HOST for lane in timeline.lanes])[timeline.lane]
    return int(timeline.end_ns[on_device].max(initial=0))


def assert_same(program: Program, costs: Costs) -> Timeline:
    timeline = run_maxplus(program, costs)
    same = timeline.same_as(run_des(program, costs))
    assert same, str(same)
    return timeline


@pytest.mark.parametrize(("spec", "ranks", "per_node"), SCHEDULES)
@pytest.mark.parametrize("pass_", ["forward", "both", "backward"])
def test_schedules(spec: str, ranks: int, per_node: int, pass_: str) -> None:
    if not parse_schedule(spec).has_backward and pass_ != "forward":
        pass_ = "forward"
    program = small_program(spec, small_setup(ranks, ranks_per_node=per_node, kv_heads=8), pass_)
    for seed in range(3):
        assert_same(program, RandomCosts(program, seed))


@given(st.integers(0, 2**32), st.integers(0, 2**32), st.booleans())
@settings(max_examples=200, deadline=None)
def test_random_programs_follow_the_rules(program_seed: int, cost_seed: int, host_waits: bool) -> None:
    program = random_program(program_seed, host_waits=host_waits)
    costs = RandomCosts(program, cost_seed)
    timeline = assert_same(program, costs)
    expected = evaluate_rules(program, costs)
    got = {
        (int(timeline.operation[i]), int(timeline.rank[i])): (int(timeline.start_ns[i]), int(timeline.end_ns[i]))
        for i in range(len(timeline))
    }
    assert got == expected


@given(st.integers(0, 2**32), st.integers(2, 5))
@settings(max_examples=25, deadline=None)
def test_costs_times_k_are_times_times_k(seed: int, factor: int) -> None:
    program = random_program(seed)
    costs = RandomCosts(program, seed)
    once, scaled = run_maxplus(program, costs), run_maxplus(program, Scaled(costs, factor))
    assert np.array_equal(once.start_ns * factor, scaled.start_ns)
    assert np.array_equal(once.end_ns * factor, scaled.end_ns)


@pytest.mark.parametrize(("spec", "ranks", "per_node"), SCHEDULES)
def test_no_lane_is_busier_than_the_makespan(spec: str, ranks: int, per_node: int) -> None:
    program = small_program(spec, small_setup(ranks, ranks_per_node=per_node, kv_heads=8))
    timeline = run_maxplus(program, RandomCosts(program, 0))
    busy = np.zeros((ranks, len(timeline.lanes)), dtype=np.int64)
    np.add.at(busy, (timeline.rank, timeline.lane), timeline.end_ns - timeline.start_ns)
    assert busy.max() <= timeline.makespan_ns

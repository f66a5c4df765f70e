"""What-if on traces: unchanged they are reproduced; changed they say what simulating the changed run itself says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cost_models.hardware import load_hardware
from simulator.engines.des import DiscreteEvents
from simulator.engines.rows import Rows
from simulator.program.operations import HOST
from simulator.traced.program import build_traced_program
from simulator.traced.what_if import Changes, TracedCosts, ask, device_end_ns, gpu_speeds, simulate_traced
from tests.simulator.costs import RoundCosts, run_traced
from tests.simulator.workloads import small_program, small_setup
from tests.traces.kineto.places import PAIRS, RECORDED, SINGLE
from tests.traces.kineto.test_recording import strip_own_words
from traces.errors import InputError
from traces.kineto import read_recording
from traces.kineto.recording import Recording
from traces.perfetto import write_traces

SCHEDULES = {
    "ring": ("ring", small_setup(4)),
    "double burst": ("burst:ring=double", small_setup(4, ranks_per_node=2)),
    "ulysses": ("ulysses", small_setup(4)),
}
COSTS = {
    "communication exposed": {"communication_us": 300},
    "communication hidden": {"communication_us": 60},
    "host too slow": {"host_us": 50},
}


def recorded(folder: Path, spec: str, setup: Any, costs: dict[str, Any], *, foreign: bool = False) -> Recording:
    traced = run_traced(small_program(spec, setup), RoundCosts(setup.n_ranks, **costs))
    write_traces(traced.timeline, folder, traced.details)
    if foreign:
        strip_own_words(folder)
    return read_recording(folder)


def simulated_ns(spec: str, setup: Any, costs: dict[str, Any]) -> int:
    return run_traced(small_program(spec, setup), RoundCosts(setup.n_ranks, **costs)).timeline.makespan_ns


@pytest.mark.parametrize("name", [*SINGLE, *PAIRS])
def test_real_traces_are_reproduced(name):
    answer = ask(read_recording(RECORDED / name), Changes())
    assert answer.unchanged_ns == pytest.approx(answer.measured_ns, rel=0.03)
    assert answer.changed_ns == answer.unchanged_ns


@pytest.mark.parametrize("name", [*SINGLE, *PAIRS])
def test_every_row_of_real_traces_is_where_it_was(name):
    """Not the end alone: each row ends when it did, to 3 % of the whole."""
    recording = read_recording(RECORDED / name)
    traced = build_traced_program(recording)
    again = simulate_traced(traced, Changes())
    of = {op.id: dict(op.options)["operation"] for op in traced.program.operations}
    columns = (recording.timeline.operation, recording.timeline.rank, recording.timeline.end_ns)
    measured = {(o, r): end for o, r, end in zip(*(column.tolist() for column in columns), strict=True)}
    compared = 0
    for operation, rank, end_ns in zip(*(c.tolist() for c in (again.operation, again.rank, again.end_ns)), strict=True):
        if of[operation] >= 0:
            assert end_ns == pytest.approx(measured[of[operation], rank], abs=0.03 * recording.timeline.makespan_ns)
            compared += 1
    assert compared == len(recording.timeline)


@pytest.mark.parametrize("costs", COSTS.values(), ids=COSTS)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "foreign"])
def test_a_faster_link_is_what_simulating_it_says(tmp_path, schedule, costs, foreign):
    recording = recorded(tmp_path / "t", *schedule, costs, foreign=foreign)
    answer = ask(recording, Changes(link=3))
    assert answer.unchanged_ns == pytest.approx(simulated_ns(*schedule, costs), rel=0.03)
    assert answer.changed_ns == pytest.approx(simulated_ns(*schedule, costs | {"link": 3}), rel=0.03)


@pytest.mark.parametrize("costs", COSTS.values(), ids=COSTS)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_slower_link_uncovers_what_was_hidden(tmp_path, schedule, costs):
    """The waits that took no time are in the trace; without them a slower link would seem to cost nothing."""
    recording = recorded(tmp_path / "t", *schedule, costs)
    answer = ask(recording, Changes(link=0.2))
    assert answer.changed_ns == pytest.approx(simulated_ns(*schedule, costs | {"link": 0.2}), rel=0.03)


def test_a_faster_host_and_gpu_are_what_simulating_them_says(tmp_path):
    costs = {"host_us": 40, "compute_us": 30}
    recording = recorded(tmp_path / "t", *SCHEDULES["ring"], costs)
    faster = ask(recording, Changes(host=10))
    assert faster.changed_ns == pytest.approx(simulated_ns(*SCHEDULES["ring"], costs | {"host_us": 4}), rel=0.03)
    gpu = ask(recording, Changes(host=10, compute={"*": 0.5}))
    expected = simulated_ns(*SCHEDULES["ring"], {"host_us": 4, "compute_us": 60})
    assert gpu.changed_ns == pytest.approx(expected, rel=0.03)


def test_a_kind_alone_can_be_faster(tmp_path):
    recording = recorded(tmp_path / "t", *SCHEDULES["ring"], {})
    attention = ask(recording, Changes(compute={"attention_forward": 2, "attention_backward": 2})).changed_ns
    everything = ask(recording, Changes(compute={"*": 2})).changed_ns
    assert everything < attention < ask(recording, Changes()).changed_ns


def test_one_slow_rank_slows_all_through_the_ring(tmp_path):
    recording = recorded(tmp_path / "t", *SCHEDULES["ring"], {})
    answer = ask(recording, Changes(slow_ranks={2: 2.0}))
    assert answer.changed_ns > 1.3 * answer.unchanged_ns
    ends = [int(answer.timeline.end_ns[answer.timeline.rank == rank].max()) for rank in range(4)]
    assert min(ends) > 1.2 * answer.unchanged_ns


def test_overlap_none_and_full_bound_what_was_recorded(tmp_path):
    recording = recorded(tmp_path / "t", *SCHEDULES["ring"], {"communication_us": 90})
    none, full = (ask(recording, Changes(overlap=overlap)).changed_ns for overlap in ("none", "full"))
    assert full <= ask(recording, Changes()).unchanged_ns < none


def test_work_after_a_synchronisation_follows_the_device():
    """The host of the big layer waits for its loss: with kernels in no time, steps are as long as the host's work."""
    recording = read_recording(RECORDED / "h100-kernels.json.gz")
    answer = ask(recording, Changes(compute={"*": 1e6}))
    host = sum(times.host_ns[0] for times in build_traced_program(recording).times)
    assert 0.3 * answer.measured_ns < answer.changed_ns < 0.75 * answer.measured_ns
    assert answer.changed_ns == pytest.approx(host, rel=0.15)


def test_without_recorded_waits_that_is_said(tmp_path):
    answer = ask(read_recording(RECORDED / "gloo-ring"), Changes())
    assert "no waits between streams: 4 were inferred" in answer.warnings[-1]
    recording = recorded(tmp_path / "t", *SCHEDULES["ring"], {})
    assert not ask(recording, Changes()).warnings


def test_speeds_of_another_gpu():
    h100, a100 = load_hardware("h100-sxm"), load_hardware("a100-80")
    speeds = gpu_speeds(h100, a100)
    assert all(0.2 < speed < 1 for speed in speeds.values())
    assert gpu_speeds(h100, h100) == dict.fromkeys(speeds, 1.0)


def test_a_program_of_a_trace_has_ranks_lanes_and_no_circle(tmp_path):
    recording = recorded(tmp_path / "t", *SCHEDULES["double burst"], {})
    program = build_traced_program(recording).program
    assert program.setup.n_ranks == 4
    assert {op.lane for op in program.operations} == {"compute", "comm:intra", "comm:inter"}
    assert [op.id for op in program.operations] == list(range(len(program.operations)))
    sent = sum(np.sum(op.bytes_sent) for op in program.operations)
    assert sent == recording.timeline.bytes.sum()


def test_without_host_waits_both_engines_agree(tmp_path):
    recording = recorded(tmp_path / "t", *SCHEDULES["ring"], {})
    traced = build_traced_program(recording)
    assert HOST not in {op.lane for op in traced.program.operations}
    makespan_ns = DiscreteEvents(traced.program, TracedCosts(traced, Changes())).run()
    assert makespan_ns == device_end_ns(simulate_traced(traced, Changes()))


def test_with_host_waits_both_engines_agree():
    traced = build_traced_program(read_recording(RECORDED / "h100-kernels.json.gz"))
    assert HOST in {op.lane for op in traced.program.operations}
    rows = Rows(traced.program.setup.n_ranks)
    DiscreteEvents(traced.program, TracedCosts(traced, Changes()), rows).run()
    same = simulate_traced(traced, Changes()).same_as(rows.timeline())
    assert same, str(same)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"link": 0}, "factor of link: got 0"), ({"host": float("inf")}, "factor of host"),
     ({"compute": {"gemm": -1}}, "factor of gemm"), ({"slow_ranks": {0: 0}}, "factor of rank 0")],
)  # fmt: skip
def test_impossible_changes(changes, message):
    with pytest.raises(InputError, match=message):
        Changes(**changes)


def test_what_is_not_there():
    recording = read_recording(RECORDED / "gloo-ring")
    with pytest.raises(InputError, match="no such rank: got 2"):
        ask(recording, Changes(slow_ranks={2: 2}))
    with pytest.raises(InputError, match="unknown overlap: got some"):
        ask(recording, Changes(overlap="some"))

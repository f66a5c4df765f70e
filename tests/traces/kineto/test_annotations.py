"""Annotations of our executor: written, read, and in a recorded run the operations of its Program."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.simulator.costs import RoundCosts, run_traced
from tests.simulator.workloads import small_program, small_setup
from tests.traces.kineto.places import RECORDED
from traces.differences import compare_timelines, select_step
from traces.kineto import read_recording
from traces.kineto.annotations import SIDES, Named, annotation, parse_annotation

WORDS = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1)


@given(st.builds(Named, st.integers(0), st.sampled_from(SIDES), WORDS, WORDS, st.integers(0)))
def test_annotations_come_back(named):
    assert parse_annotation(annotation(named)) == named


def test_what_others_write_is_no_annotation():
    assert parse_annotation("ProfilerStep#2") is None
    assert parse_annotation("attnsim#x compute/merge forward 3") is None


def test_a_recorded_run_has_the_operations_of_its_program():
    """Kernel by kernel there are ten times as many; by operation they are those of the Program, step by step."""
    measured = select_step(read_recording(RECORDED / "gloo-executor"))
    program = small_program("ring", small_setup(2))
    simulated = run_traced(program, RoundCosts(2)).timeline
    comparison = compare_timelines(simulated, measured)
    differing = {kind for kind, (ours, theirs) in comparison.kinds.items() if ours != theirs}
    assert differing == {"compute/cast/forward", "compute/cast/backward"}, "recorded in fp32: nothing to cast"
    assert comparison.kinds["communication/exchange/backward"] == (3, 3)
    assert {info.kind for info in measured.operations if info.name.startswith("attnsim#")} <= {
        info.kind for info in simulated.operations
    }


def test_steps_of_the_schedule_are_known():
    timeline = read_recording(RECORDED / "gloo-executor").timeline
    steps = {info.step for info in timeline.operations if info.kind == "attention_backward"}
    assert len(steps) == 2

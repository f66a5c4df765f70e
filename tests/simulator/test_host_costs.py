"""What the host needs by kind of operation, and what the first of a kind takes more in a call on its own."""

from __future__ import annotations

from typing import Any

import pytest

from cost_models.hardware import HardwareProfile
from cost_models.hardware.load import load_published
from cost_models.topology import load_topology
from simulator.costing import CostModel
from simulator.engines.maxplus import MaxPlus
from simulator.program.program import Program
from simulator.steps.train import record_training_step
from validators.validation.step_configuration import StepConfiguration

STEP = StepConfiguration("model", 2, 64, 4, 2, 16, 96, 128, 256, 1, "cudnn")
HOST = {
    "kernel_s": 9e-6,
    "kinds": {"add": 3e-6, "linear": 5e-6},
    "first": {"add": 40e-6},
    "first_s": 20e-6,
    "isolated": 2.0,
}


def profile(**host: Any) -> HardwareProfile:
    published = load_published("h100-sxm")
    return published.model_copy(update={"host": published.host.model_copy(update=HOST | host)})


def program() -> Program:
    plan = STEP.plan("flash")
    found = Program(plan.world)
    record_training_step(plan, found)
    return found


def host_ns(profile: HardwareProfile, kind: str) -> list[int]:
    costs = CostModel(load_topology("dgx-h100", 1, 1), profile, "cudnn")
    return [int(costs.host_ns(each)) for each in program().operations if each.kind == kind]


def test_a_host_that_goes_on_takes_a_launch_for_each() -> None:
    for kind in ("add", "linear", "swiglu"):
        assert set(host_ns(profile(), kind)) == {9000}


def test_in_a_call_on_its_own_attention_is_priced_by_kernel_and_launch() -> None:
    alone = profile(kinds={"cudnn_forward": 70e-6}, first={"attention_forward": 50e-6}, isolated=1.0).isolated()
    assert host_ns(alone, "attention_forward") == [120_000, 70_000]
    assert host_ns(profile(kinds={"cudnn_forward": 70e-6}), "attention_forward") != [70_000, 70_000]


def test_in_a_call_on_its_own_the_first_of_each_kind_takes_more() -> None:
    """And all take ``isolated`` times as long."""
    alone = profile().isolated()
    first, *later = host_ns(alone, "add")
    assert (first, set(later)) == (2 * 43_000, {2 * 3000})
    first, *later = host_ns(alone, "swiglu")
    assert (first, set(later)) == (2 * 29_000, {2 * 9000})
    assert alone.host.isolated == 1.0


def test_asking_again_changes_nothing() -> None:
    costs = CostModel(load_topology("dgx-h100", 1, 1), profile().isolated(), "cudnn")
    adds = [each for each in program().operations if each.kind == "add"]
    assert [costs.host_ns(each) for each in adds] == [costs.host_ns(each) for each in adds]


def test_a_step_that_waits_for_its_host_ends_with_it() -> None:
    """Kernels of a tiny step are done long before the next is issued."""
    slow = profile(kernel_s=1e-3, kinds={}, isolated=1.0)
    costs, found = CostModel(load_topology("dgx-h100", 1, 1), slow, "cudnn"), program()
    engine = MaxPlus(1, costs)
    found.replay(engine)
    issued = sum(int(costs.host_ns(each)) for each in found.operations)
    assert engine.makespan_ns == pytest.approx(issued, rel=0.01)

"""What a rank issues is its part of the Program, in order, as often as it is called."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from simulator.program.program import Program
from validators.executors.distributed import RankExecutor
from validators.executors.lanes import ThreadLanes
from validators.kernels.dense import DenseKernel
from validators.validation.step_configuration import StepConfiguration
from validators.validation.step_inputs import StepInputs

STEP = StepConfiguration("model", 2, 32, 4, 2, 8, 48, 64, 32, 1, "dense", checkpoint="full", loss_chunks=2)


class Alone:
    """A world of one process."""

    rank, size, device = 0, 1, torch.device("cpu")

    def __init__(self) -> None:
        self.lanes = ThreadLanes()

    def agree_on_start(self) -> int:
        return time.monotonic_ns()


@pytest.fixture
def program() -> Program:
    return STEP.program("flash")


def build(program: Program) -> RankExecutor:
    world: Any = Alone()
    return RankExecutor(world, program, DenseKernel(), StepInputs(STEP, 1, 0, world.device).load, poison=True)


def test_every_operation_is_issued_and_timed_once(program: Program) -> None:
    times = build(program).issue_times_ns()
    assert [number for number, _ in times] == [each.id for each in program.operations]
    assert all(took_ns >= 0 for _, took_ns in times)


def test_what_was_released_is_forgotten(program: Program) -> None:
    executor = build(program)
    executor.call()
    kept = {subject.id for verb, subject in program.events if verb == "allocate"}
    kept -= {subject.id for verb, subject in program.events if verb == "release"}
    assert set(executor._store._held) == kept
    executor.forget()
    assert not executor._store._held


def test_a_buffer_read_after_its_release_is_an_error(program: Program) -> None:
    """Not memory that is taken anew."""
    first = next(each for each in program.operations if len(each.reads) > 1)
    program.events.insert(0, ("release", first.reads[1]))
    with pytest.raises(KeyError):
        build(program).call()


def test_a_second_call_is_like_the_first(program: Program) -> None:
    """But for the weights, which a step updates in place: with the states put back, the same losses."""
    executor = build(program)
    losses = []
    for _ in range(2):
        states = {number: tensor.clone() for number, tensor in executor._inputs.items()}
        executor.call()
        losses.append({name: tensor.clone() for name, tensor in executor.outputs.items()})
        for number, tensor in states.items():
            executor._inputs[number].copy_(tensor)
    assert losses[0].keys() == losses[1].keys() and losses[0]
    for name, first in losses[0].items():
        torch.testing.assert_close(losses[1][name], first, msg=name)


def test_launches_of_attention_are_known_after_a_call(program: Program) -> None:
    executor = build(program)
    attention = next(each.id for each in program.operations if each.kind == "attention_forward")
    assert executor.launches(attention) == 0
    executor.call()
    assert executor.launches(attention) == 1

"""A result's line says what was simulated: its subject, and every option that is not left alone."""

from __future__ import annotations

from dataclasses import fields

import pytest

from simulator.asked import StepFields
from simulator.described import SUBJECTS, UNSAID, describe_inputs
from simulator.request import SimulationRequest
from simulator.request_checks import PASSES

OPTIONS = {"model": "llama-3.1-8b", "seq_len": "8k", "gpus": 4, "topology": "dgx-h100"}


def line(**options: object) -> str:
    resolved = SimulationRequest(**(OPTIONS | options)).resolve()  # type: ignore[arg-type]
    return describe_inputs(resolved.inputs)


def test_every_subject_has_words_of_its_own() -> None:
    assert set(SUBJECTS) == {(layers, pass_) for layers, passes in PASSES.items() for pass_ in passes}
    lines = {line(layers=layers, pass_=pass_) for layers, pass_ in SUBJECTS}
    assert len(lines) == len(SUBJECTS)


def test_a_subject_left_alone_is_the_first() -> None:
    assert line().startswith("attention of llama-3.1-8b, 8k tokens")
    assert line(layers="model").startswith("training step of llama-3.1-8b")
    assert line(layers="model", pass_="decode", new_tokens=3).startswith("decoding 3 tokens of llama-3.1-8b")


@pytest.mark.parametrize("name", [each.name for each in fields(StepFields) if each.name not in UNSAID])
def test_no_option_of_a_step_goes_unsaid(name: str) -> None:
    inputs = dict(SimulationRequest(**OPTIONS, layers="model").resolve().inputs)  # type: ignore[arg-type]
    changed = True if isinstance(inputs[name], bool) else 7
    assert describe_inputs(inputs | {name: changed}) != describe_inputs(inputs)


def test_a_changed_cluster_says_so() -> None:
    text = line(what_if="net=0.5,flop=2", slow_rank=["1:1.5"])
    assert text.endswith("on 4 h100-sxm of dgx-h100, net 0.5x, flop 2x, slow rank 1:1.5")

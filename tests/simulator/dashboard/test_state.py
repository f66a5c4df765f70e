"""A state is its link, its command and its Python; a wrong field is named."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

import pytest

import attnsim
from simulator.dashboard.checks import find_problems
from simulator.dashboard.reproduce import command_line, python_code
from simulator.dashboard.state import FLAGS, PARTS, STEP_FIELDS, SUBJECTS, State, exponent_of, factor_of
from simulator.request import SimulationRequest

OTHER = State(model="yi-34b", gpus="4", seq_len="16k", mask="document:lengths=8k+8k,causal=true", net="0.5",
              schedule="ring", interference="on")  # fmt: skip


def test_a_link_brings_the_state_back() -> None:
    assert State().query == ""
    assert State.from_query(OTHER.query) == OTHER
    assert "gpus=4" in OTHER.query and "topology" not in OTHER.query


def test_links_of_others_do_no_harm() -> None:
    state = State.from_query("?gpus=2&unheard=1&options=x&model=" + "m" * 10_000)
    assert state.gpus == "2" and len(state.model) < 1000


def test_the_request_has_what_the_form_says() -> None:
    request = OTHER.request()
    assert (request.gpus, request.seq_len, request.engine, request.what_if) == (4, "16k", "maxplus", "net=0.5")
    assert request.interference and not State().request().interference


def test_the_command_line_is_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("simulator.compare.compare", lambda request, progress: seen.append(request) or [])
    state = State(model="yi-34b", gpus="4", mask="document:lengths=8k+8k,causal=true", seq_len="16k", net="0.5")
    with pytest.raises(SystemExit):
        attnsim.main(shlex.split(command_line(state, None))[1:])
    for name, value in state.options.items():
        assert getattr(seen[0], name) == value


def test_python_reproduces_the_number() -> None:
    found: dict[str, Any] = {}
    state = State(gpus="2", seq_len="8k", nvlink="0.5")
    exec(python_code(state, "ring"), found)  # noqa: S102 - it is ours
    assert found["result"].time_s == attnsim.simulate(state.request(schedule="ring")).time_s
    exec(python_code(State(gpus="2", seq_len="8k"), "ring"), faster := {})
    assert found["result"].exposed_communication_s > faster["result"].exposed_communication_s


@pytest.mark.parametrize("exponent", [-3, -0.5, 0, 1.5, 3])
def test_sliders_stand_where_they_were_put(exponent: float) -> None:
    assert exponent_of(factor_of(exponent)) == exponent


@pytest.mark.parametrize("text", ["", "x", "nan", "0", "-1", "1e9"])
def test_no_slider_for_what_is_no_factor(text: str) -> None:
    assert exponent_of(text) == 0


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"model": "llama-9"}, "model", "llama-9"),
        ({"hardware": "h1000"}, "hardware", "h1000"),
        ({"gpus": "many"}, "gpus", "whole number"),
        ({"gpus": "4096"}, "gpus", "attnsim plan"),
        ({"topology": "dgx-x"}, "topology", "dgx-x"),
        ({"seq_len": "long"}, "seq_len", "long"),
        ({"seq_len": "1G"}, "seq_len", "answered at once"),
        ({"mask": "triangle"}, "mask", "triangle"),
        ({"mask": "document:lengths=1k+1k"}, "mask", "document"),
        ({"net": "-1"}, "what_if", "net"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, str], field: str, words: str) -> None:
    (problem,) = find_problems(State(**changes))
    assert problem.field == field and words in problem.message


def test_fields_start_where_the_options_do() -> None:
    """A field left alone is the option left out, and each is on the command line."""
    defaults = {each.name: each.default for each in dataclasses.fields(SimulationRequest)}
    for name in (*STEP_FIELDS, "nodes", "kernel"):
        value = defaults[name]
        text = {None: "", False: "off"}.get(value, str(value)) if value != 0 or value is False else "0"
        assert getattr(State(), name) == text, name


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_field_of_a_subject_becomes_its_option(subject: str) -> None:
    state = State(subject=subject)
    for name in state.step_fields:
        changed = dataclasses.replace(state, **{name: "on" if name in FLAGS else "7"})
        assert getattr(changed.request(), name) not in (None, getattr(SimulationRequest(seq_len=1, gpus=1), name))
        assert f"--{name.replace('_', '-')}" in command_line(changed, None)


def test_nothing_is_wrong_with_the_start() -> None:
    assert find_problems(State()) == []
    assert set(PARTS) < set(State.__dataclass_fields__)

"""Which field of a form is wrong, and why: each is checked alone, then all together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from cost_models.hardware import load_hardware
from cost_models.masks import parse_mask
from cost_models.models import load_model
from cost_models.topology import load_topology
from cost_models.units import parse_count
from cost_models.variation import parse_variation
from simulator.dashboard.measured import load_measured
from simulator.dashboard.state import SUBJECTS, State
from simulator.steps.plan import StepOptions
from simulator.steps.record import setup_of
from traces.errors import InputError

MOST_GPUS, MOST_TOKENS, MOST_SEQUENCES = 128, 2**28, 2**16
"""Above them an answer takes minutes: that is a question for `attnsim plan`."""
NEEDS = {"topology": ("gpus", "hardware"), "mask": ("seq_len",)}
"""Fields without which another is not checked; a combination needs all."""


class Problem(NamedTuple):
    """A field, empty where it is the combination, and the message."""

    field: str
    message: str


def find_problems(state: State) -> list[Problem]:
    """What is wrong with each field of a state, or else with all together; none where it can be simulated."""
    problems: list[Problem] = []
    for field, check in _checks(state).items():
        wrong = {each.field for each in problems}
        if wrong & set(NEEDS.get(field, () if field else wrong)):
            continue
        try:
            check()
        except InputError as error:
            problems.append(Problem(field, error.message))
    return problems


def _checks(state: State) -> dict[str, Callable[[], object]]:
    checks: dict[str, Callable[[], object]] = {
        "subject": lambda: _check_subject(state.subject),
        "model": lambda: load_model(state.model),
        "hardware": lambda: load_hardware(state.hardware) if state.hardware else None,
        "gpus": lambda: _check_gpus(state.gpus),
        "topology": lambda: load_topology(state.topology, _check_gpus(state.gpus), None, state.hardware or None),
        "seq_len": lambda: _check_tokens(state.seq_len),
        "batch": lambda: _check_batch(state.batch),
        "mask": lambda: parse_mask(state.mask, parse_count(state.seq_len, "seq_len")),
    }
    for name, value in state.step_options.items():
        checks[name] = partial(StepOptions, **{name: value})
    checks["what_if"] = lambda: parse_variation(state.what_if) if state.what_if else None
    checks["measured"] = lambda: load_measured(state.measured) if state.measured else None
    checks[""] = lambda: setup_of(state.request().resolve())
    return checks


def _check_subject(text: str) -> None:
    if text not in SUBJECTS:
        raise InputError("unknown subject", got=repr(text), expected="one of " + ", ".join(filter(None, SUBJECTS)))


def _check_batch(text: str) -> None:
    if not text.isdecimal() or not 0 < int(text) <= MOST_SEQUENCES:
        raise InputError("batch is not a number of sequences", got=repr(text), expected=f"1 to {MOST_SEQUENCES}")


def _check_gpus(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= MOST_GPUS:
        raise InputError("gpus is not a whole number that is answered at once", got=repr(text),
                         expected=f"1 to {MOST_GPUS}", remedy="ask attnsim plan about more")  # fmt: skip
    return int(text)


def _check_tokens(text: str) -> None:
    if parse_count(text, "seq_len") > MOST_TOKENS:
        raise InputError("seq_len is more than is answered at once", got=text, expected="at most 256M")

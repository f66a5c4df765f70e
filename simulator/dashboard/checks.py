"""Which field of a form is wrong, and why: each is checked alone, then all together."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cost_models.hardware import load_hardware
from cost_models.masks import parse_mask
from cost_models.models import load_model
from cost_models.topology import load_topology
from cost_models.units import parse_count
from cost_models.variation import parse_variation
from simulator.dashboard.measured import load_measured
from simulator.dashboard.state import State
from traces.errors import InputError

MOST_GPUS, MOST_TOKENS = 128, 2**28
"""Above them an answer takes minutes: that is a question for `attnsim plan`."""


class Problem(NamedTuple):
    """A field, empty where it is the combination, and the message."""

    field: str
    message: str


def find_problem(state: State) -> Problem | None:
    """The first thing that is wrong with a state; None where it can be simulated."""
    for field, check in _checks(state).items():
        try:
            check()
        except InputError as error:
            return Problem(field, error.message)
    return None


def _checks(state: State) -> dict[str, Callable[[], object]]:
    return {
        "model": lambda: load_model(state.model),
        "hardware": lambda: load_hardware(state.hardware) if state.hardware else None,
        "gpus": lambda: _check_gpus(state.gpus),
        "topology": lambda: load_topology(state.topology, _check_gpus(state.gpus), None, state.hardware or None),
        "seq_len": lambda: _check_tokens(state.seq_len),
        "mask": lambda: parse_mask(state.mask, parse_count(state.seq_len, "seq_len")),
        "what_if": lambda: parse_variation(state.what_if) if state.what_if else None,
        "measured": lambda: load_measured(state.measured) if state.measured else None,
        "": lambda: state.request().resolve(),
    }


def _check_gpus(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= MOST_GPUS:
        raise InputError("gpus is not a whole number that is answered at once", got=repr(text),
                         expected=f"1 to {MOST_GPUS}", remedy="ask attnsim plan about more")  # fmt: skip
    return int(text)


def _check_tokens(text: str) -> None:
    if parse_count(text, "seq_len") > MOST_TOKENS:
        raise InputError("seq_len is more than is answered at once", got=text, expected="at most 256M")

"""Which field of a form is wrong, and why: each is checked alone, then all together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from cost_models.hardware import load_hardware
from cost_models.masks import parse_mask
from cost_models.models import load_model
from cost_models.topology import load_topology
from cost_models.units import parse_count
from cost_models.variation import parse_variation
from simulator.dashboard.measured import load_measured
from simulator.dashboard.state import SUBJECTS, State
from simulator.schedules.ring import Ring
from simulator.steps.plan import StepOptions
from simulator.steps.record import setup_of, subject_of
from traces.errors import InputError

MOST_GPUS, MOST_TOKENS, MOST_SEQUENCES = 128, 2**28, 2**16
"""Above them an answer takes minutes: that is a question for `attnsim plan`."""
NEEDS = {
    "topology": ("gpus", "hardware", "nodes"),
    "mask": ("seq_len",),
    "kernel": ("gpus", "hardware", "nodes", "topology"),
}
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
            problems.append(place_problem(error.message, state) if not field else Problem(field, error.message))
    return problems


def place_problem(message: str, state: State) -> Problem:
    """A problem of the whole set-up: at the option that its message begins with, else above the form.

    >>> place_problem("stage_link needs pipeline stages", State(subject="model/decode")).field
    'stage_link'
    """
    spoken = message.partition(": ")[0].replace(" ", "_")
    shown = [name for name in state.step_fields if f"{spoken}_".startswith(f"{name}_")]
    return Problem(shown[0] if shown else "", message)


def _checks(state: State) -> dict[str, Callable[[], object]]:
    checks: dict[str, Callable[[], object]] = {
        "subject": lambda: _check_subject(state.subject),
        "model": lambda: load_model(state.model),
        "hardware": lambda: load_hardware(state.hardware) if state.hardware else None,
        "gpus": lambda: _check_gpus(state.gpus),
        "nodes": lambda: _check_nodes(state),
        "topology": lambda: load_topology(
            state.topology, _check_gpus(state.gpus), _nodes(state.nodes), state.hardware or None
        ),
        "kernel": lambda: state.request().resolve().profile.kernel(state.kernel) if state.kernel else None,
        "seq_len": lambda: _check_tokens(state.seq_len),
        "batch": lambda: _check_batch(state.batch),
        "mask": lambda: parse_mask(state.mask, parse_count(state.seq_len, "seq_len")),
    }
    for name, value in state.step_options.items():
        checks[name] = partial(_check_option, name, value)
    checks["what_if"] = lambda: parse_variation(state.what_if) if state.what_if else None
    checks["measured"] = lambda: load_measured(state.measured) if state.measured else None
    checks[""] = lambda: _check_all(state)
    return checks


def _check_all(state: State) -> None:
    """The combination; what a ring is refused for counts where it is an option's fault, not the ring's."""
    resolved = state.request().resolve()
    setup_of(resolved)
    try:
        subject_of(Ring(), resolved)
    except InputError as error:
        if place_problem(error.message, state).field:
            raise


def _check_subject(text: str) -> None:
    if text not in SUBJECTS:
        raise InputError("unknown subject", got=repr(text), expected="one of " + ", ".join(filter(None, SUBJECTS)))


def _check_option(name: str, value: Any) -> None:
    if name == "weight_bits" and not isinstance(value, float):
        raise InputError("weight_bits is no number", got=repr(value), expected="1 to 16")
    StepOptions(**{name: value})


def _check_nodes(state: State) -> None:
    nodes = _nodes(state.nodes)
    if nodes and state.gpus.isdecimal() and int(state.gpus) % nodes:
        raise InputError("nodes does not divide gpus", got=f"{state.gpus} gpus on {nodes} nodes")


def _nodes(text: str) -> int | None:
    if text and (not text.isdecimal() or not 0 < int(text) <= MOST_GPUS):
        raise InputError("nodes is not a whole number", got=repr(text), expected=f"1 to {MOST_GPUS}")
    return int(text) if text else None


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

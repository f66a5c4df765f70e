"""Options of a request that do not go together, refused before anything is loaded."""

from __future__ import annotations

from dataclasses import fields

from simulator.asked import RequestFields
from simulator.steps.plan import StepOptions
from traces.errors import InputError

PASSES = {
    "attention": ("both", "forward", "backward"),
    "layer": ("both", "forward", "backward"),
    "model": ("step", "prefill", "decode"),
}
"""Passes of each choice of layers, the default first (for attention and layer the schedule may have another)."""

LAYER_OPTIONS = ("tp", "placement", "tp_version", "checkpoint", "ep", "routing", "capacity", "fp8")
"""Of the options of steps, those that one layer has."""

ENGINES = ("auto", "maxplus", "des")

MOST_GPUS = 2**18
"""Ulysses on as many takes 2 s, a ring on 2^14 takes 8 s and four times as long on twice as many."""


def check_request(request: RequestFields) -> None:
    """Refuse the first option that is wrong or contradicts another."""
    _check_choice("layers", request.layers, tuple(PASSES))
    if request.layers != "attention" and request.model is None:
        raise InputError(f"layers {request.layers} needs a model", remedy="name one instead of heads and head_dim")
    _check_parallel(request)
    if request.allocator_slack is not None and not 1 <= request.allocator_slack <= 10:
        raise InputError("allocator_slack is out of range", got=request.allocator_slack, expected="1 to 10")
    passes = PASSES[request.layers]
    if request.pass_ is not None and request.pass_ not in passes:
        raise InputError(
            f"pass does not go with layers {request.layers}", got=request.pass_, expected="one of " + ", ".join(passes)
        )
    _check_choice("engine", request.engine, ENGINES)
    for name in ("gpus", "batch", "nodes", "heads", "kv_heads", "head_dim"):
        _check_positive(name, getattr(request, name))
    if request.gpus > MOST_GPUS:
        raise InputError("too many gpus", got=request.gpus, expected=f"at most {MOST_GPUS}",
                         remedy="simulate one context parallel group, or a replica of the model")  # fmt: skip
    if request.nodes is not None and request.gpus % request.nodes:
        raise InputError("nodes does not divide gpus", got=f"{request.gpus} gpus on {request.nodes} nodes")


def _check_parallel(request: RequestFields) -> None:
    """Refuse options of steps that the layers asked for do not have."""
    if request.layers == "model":
        return
    allowed = LAYER_OPTIONS if request.layers == "layer" else ()
    for each in fields(StepOptions):
        value = getattr(request, each.name)
        if value != each.default and each.name not in allowed:
            raise InputError(f"{each.name} does not go with layers {request.layers}", got=value,
                             remedy="ask for layers model")  # fmt: skip


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"unknown {name}", got=repr(value), expected="one of " + ", ".join(choices))


def _check_positive(name: str, value: int | None) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InputError(f"{name} is not a positive whole number", got=repr(value))

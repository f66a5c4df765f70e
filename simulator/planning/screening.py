"""A first look at the steps of deep models: one and two layers per pipeline stage say what all of them take.

    x(n) = x(1) + (n - 1) (x(2) - x(1)),     n layers per stage; x time or peak memory

Layers are alike, so a step is periodic in them and the line is exact but for its ends. Estimates only choose which
candidates are simulated whole: those among the best `KEPT` times as many as are asked for, and those on the Pareto
front of the estimates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from cost_models.models import ModelShape
from simulator.planning.objective import Price, key, measures
from simulator.planning.pareto import pareto_front
from simulator.planning.points import Outcome, Point
from simulator.planning.runners import Runner
from simulator.planning.space import Candidate

KEPT = 2
FEWEST_LAYERS = 4
"""Layers per stage from which a first look is cheaper."""

Estimate = dict[str, float]


def screen(
    candidates: Sequence[Candidate],
    base: Point,
    model: ModelShape,
    runner: Runner,
    objective: str,
    top: int,
    price: Price | None,
    room_bytes: int,
    tell: Callable[[int, int], None],
) -> tuple[list[Candidate], list[Candidate]]:
    """Candidates to simulate whole, and those out, with their estimate as the reason.

    Parameters
    ----------
    base : what all points have in common.
    room_bytes : memory of a GPU.
    tell : called with points done and their number.
    """
    deep = [] if model.moe and model.moe.first_dense else [each for each in candidates if _is_deep(each, model)]
    points = [_truncated(each, base, model, layers) for each in deep for layers in (1, 2)]
    outcomes: dict[int, Outcome] = {}
    for index, outcome in runner.run(points):
        outcomes[index] = outcome
        tell(len(outcomes), len(points))
    estimates: dict[str, Estimate] = {}
    for number, each in enumerate(deep):
        estimate = _extrapolate(outcomes[2 * number], outcomes[2 * number + 1], _stage_layers(each, model), price)
        if estimate is not None:
            estimates[str(each)] = estimate | {"fits": float(estimate["peak_memory_bytes"] <= room_bytes)}
    chosen = _choose(estimates, objective, top)
    kept = [each for each in candidates if str(each) not in estimates or str(each) in chosen]
    out = [each for each in candidates if str(each) in estimates and str(each) not in chosen]
    return kept, [replace(each, reason=_reason(estimates[str(each)])) for each in out]


def _truncated(candidate: Candidate, base: Point, model: ModelShape, layers: int) -> dict[str, Any]:
    """A point with so many layers per stage."""
    shape = replace(model, layers=layers * candidate.options.get("pp", 1), sliding_layers=0)
    return {**base, **candidate.options, "model": shape}


def _stage_layers(candidate: Candidate, model: ModelShape) -> int:
    return int(model.layers // candidate.options.get("pp", 1))


def _is_deep(candidate: Candidate, model: ModelShape) -> bool:
    return _stage_layers(candidate, model) >= FEWEST_LAYERS


def _extrapolate(one: Outcome, two: Outcome, layers: int, price: Price | None) -> Estimate | None:
    if "time_s" not in one or "time_s" not in two:
        return None
    more = layers - 1
    whole = {name: one[name] + more * (two[name] - one[name]) for name in ("time_s", "peak_memory_bytes")}
    return measures({**one, **whole}, price)


def _choose(estimates: dict[str, Estimate], objective: str, top: int) -> set[str]:
    fitting = {name: each for name, each in estimates.items() if each["fits"]}
    names = sorted(fitting, key=lambda name: (key(objective, fitting[name]), name))
    front = pareto_front([[fitting[name]["time_s"], fitting[name]["peak_memory_bytes"]] for name in names])
    return {*names[: KEPT * top], *(names[index] for index in front)}


def _reason(estimate: Estimate) -> str:
    if not estimate["fits"]:
        return "out of memory, estimated from one and two layers per stage"
    return "not among the best, estimated from one and two layers per stage"

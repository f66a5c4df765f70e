"""Branch and bound: bounds are bounds, and the answer is that of whole simulations of all candidates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from cost_models.models import load_model
from simulator.planning import sampled, search
from simulator.planning.least_memory import least_memory_bytes
from simulator.planning.least_time import Bounded, least_times_s
from simulator.planning.looks import Look, refine_look, take_look
from simulator.planning.objective import Price, key, measures
from simulator.planning.plan import PlanResult, base_point, plan
from simulator.planning.points import Outcome, run_point
from simulator.planning.runners import Here
from simulator.planning.space import Candidate, list_candidates
from simulator.planning.standing import MARGIN, MARGIN_OF_MICROBATCHES
from simulator.planning.tables import plan_tables
from simulator.request import SimulationRequest
from simulator.schedules import parse_schedule
from simulator.steps.record import plan_of
from traces.errors import InputError

LLAMA = replace(load_model("llama-3.1-8b"), layers=10)
STEP = SimulationRequest(model=LLAMA, seq_len="32k", gpus=4, batch=2, topology="dgx-h100", layers="model")
SEVERAL = replace(STEP, batch=8, microbatches=4, seq_len="8k")
PREFILL = replace(STEP, pass_="prefill")
AXES = {"schedule": ["ring", "ulysses", "usp", "allgather"], "tp": [1, 2], "dp": [1], "zero": [3],
        "checkpoint": ["none", "full"]}  # fmt: skip
TOP = 3


def legal(request: SimulationRequest, axes: dict[str, Any]) -> list[Candidate]:
    return [each for each in list_candidates(request, axes) if not each.reason]


@pytest.fixture(scope="module")
def whole() -> dict[str, Outcome]:
    """Every candidate simulated whole."""
    return {str(each): run_point({**base_point(STEP), **each.options}) for each in legal(STEP, AXES)}


def dominates(a: Outcome, b: Outcome) -> bool:
    first, second = ((each["time_s"], each["peak_memory_bytes"]) for each in (a, b))
    return first != second and all(x <= y for x, y in zip(first, second, strict=True))


@pytest.mark.parametrize("objective", ["time", "throughput", "memory", "cost"])
def test_best_and_front_are_those_of_whole_simulations_of_all(whole: dict[str, Outcome], objective: str) -> None:
    price = Price(2.0, "test")
    found = plan(STEP, Here(), top=TOP, axes=AXES, objective=objective, price=price)
    place = {name: (key(objective, measures(each, price)), each["time_s"], name) for name, each in whole.items()
             if each.get("fits")}  # fmt: skip
    best = sorted(place, key=lambda name: place[name])[:TOP]
    assert [each["candidate"] for each in found.candidates] == best
    assert [each["result"] for each in found.candidates] == [whole[name] for name in best]
    limit_s = search.SLACK * max(whole[name]["time_s"] for name in best)
    near = {name: whole[name] for name in place if whole[name]["time_s"] <= limit_s}
    front = {name for name, each in near.items() if not any(dominates(other, each) for other in near.values())}
    values = {(near[name]["time_s"], near[name]["peak_memory_bytes"]) for name in front}
    assert {(each["time_s"], each["peak_memory_bytes"]) for each in found.pareto} == values
    assert {each["candidate"] for each in found.pareto} <= front
    reasons = [each["reason"] for each in found.dropped]
    assert len(reasons) + TOP == len(list_candidates(STEP, AXES))
    assert any("estimated from two and three layers" in each for each in reasons), "not all are simulated"


@pytest.mark.parametrize(
    ("request_", "axes"),
    [
        (STEP, {**AXES, "schedule": ["ring", "usp", "magi", "burst"], "zero": [1, 3]}),
        (SEVERAL, {"schedule": ["ulysses", "burst", "ring"], "pp": [1, 2], "zero": [3]}),
        (PREFILL, {"schedule": ["ring", "allgather", "star"], "dp": [1, 2]}),
    ],
)
def test_bounds_are_never_more_than_whole_simulations(request_: SimulationRequest, axes: dict[str, Any]) -> None:
    """Nor are looks, once their margin is taken off; and all are close enough to be of use."""
    margin = MARGIN if request_.microbatches == 1 else MARGIN_OF_MICROBATCHES
    shares: dict[str, list[float]] = {"least": [], "looked": [], "refined": [], "memory": []}
    candidates = legal(request_, axes)
    for candidate in Random(7).sample(candidates, min(8, len(candidates))):
        point = {**base_point(request_), **candidate.options}
        outcome, look = run_point(point), Look(point, LLAMA, int(candidate.options["pp"]))
        if not outcome.get("fits"):
            continue
        looked, refined = take_look(look), refine_look(look)
        shares["least"].append(least_times_s(Bounded([point]))[0] / outcome["time_s"])
        shares["looked"].append(looked["time_s"] * (1 - margin) / outcome["time_s"])
        shares["refined"].append(refined["time_s"] * (1 - margin) / outcome["time_s"])
        shares["memory"].append(looked["peak_memory_bytes"] / outcome["peak_memory_bytes"])
    assert all(0.5 < each <= 1 for name in shares for each in shares[name]), shares
    assert max(shares["least"]) > 0.8 and max(shares["memory"]) == 1


@pytest.mark.parametrize(("kept", "fp8"), [("none", False), ("full", False), ("none", True)])
def test_bounds_hold_where_stages_are_interleaved(kept: str, fp8: bool) -> None:
    model = replace(LLAMA, layers=16)
    request = replace(
        SEVERAL, model=model, virtual_stages=2, pp=2, zero=1, checkpoint=kept, schedule="ulysses", fp8=fp8
    )
    point = {**base_point(request), "schedule": "ulysses", "pp": 2, "zero": 1, "checkpoint": kept}
    outcome, look = run_point(point), take_look(Look(point, model, 4))
    assert 0.65 < least_times_s(Bounded([point]))[0] / outcome["time_s"] <= 1, "it knows no bubble"
    assert 0.9 < look["time_s"] * (1 - MARGIN_OF_MICROBATCHES) / outcome["time_s"] <= 1
    plan_ = plan_of(parse_schedule("ulysses"), request.resolve(), model)
    assert 0.7 < least_memory_bytes(plan_) / outcome["peak_memory_bytes"] <= 1
    assert look["peak_memory_bytes"] == pytest.approx(outcome["peak_memory_bytes"], rel=0.002)


def test_a_bound_that_is_past_its_limit_is_still_one() -> None:
    point = {**base_point(STEP), "schedule": "ring", "checkpoint": "full"}
    (whole_s,) = least_times_s(Bounded([point]))
    (cut_s,) = least_times_s(Bounded([point], limit_s=whole_s / 4))
    assert 0 < cut_s < whole_s


def test_least_prices_of_a_sample_are_below_all(monkeypatch: pytest.MonkeyPatch) -> None:
    point = {**base_point(STEP), "schedule": "allgather", "gpus": 16}
    (priced,) = least_times_s(Bounded([point]))
    looked = take_look(Look(point, LLAMA))
    monkeypatch.setattr(sampled, "MOST_PRICED", 6)
    (sampled_s,) = least_times_s(Bounded([point]))
    assert 0.9 * priced < sampled_s < priced
    again = take_look(Look(point, LLAMA))
    assert again["time_s"] != looked["time_s"]
    assert again["time_s"] == pytest.approx(looked["time_s"], rel=0.01)


def test_memory_is_never_less_than_its_closed_form(whole: dict[str, Outcome]) -> None:
    """And close to it where nothing else is in memory: nothing circulates, nothing is gathered."""
    resolved, shares = STEP.resolve(), []
    for candidate in legal(STEP, AXES):
        outcome = whole[str(candidate)]
        asked = replace(resolved, request=replace(STEP, **candidate.options))
        least = least_memory_bytes(plan_of(parse_schedule(str(candidate.options["schedule"])), asked, LLAMA))
        shares.append(least / outcome["peak_memory_bytes"])
    assert max(shares) <= 1
    assert max(shares) > 0.9 and min(shares) > 0.3


def test_a_candidate_without_memory_is_out_before_anything_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "least_times_s", None)
    large = replace(STEP, model="llama-3.1-70b")
    with pytest.raises(
        InputError, match=r"nothing can run: out of memory: needs at least \d+ GiB \(and \d+ candidates"
    ):
        plan(large, Here(), axes={"schedule": ["ring", "ulysses", "usp", "burst"], "zero": [1], "tp": [1]}, top=1)


class Impatient(Here):
    """Presses Ctrl-C before its n-th wave of work."""

    def __init__(self, waves: int) -> None:
        self._left = waves

    def map(self, *arguments: Any) -> Iterator[tuple[int, Any]]:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        yield from super().map(*arguments)


def test_an_interruption_keeps_estimates() -> None:
    axes = {"schedule": ["ring", "ulysses"], "zero": [3], "checkpoint": ["full"]}
    found = plan(STEP, Impatient(2), axes=axes)  # least times, and one step of looks
    assert found.interrupted and found.candidates and found.pareto
    for each in found.candidates:
        assert each["estimated"] and each["result"] is None
        whole = run_point({**base_point(STEP), **each["options"]})
        assert each["time_s"] == pytest.approx(whole["time_s"], rel=0.1)
    assert "(estimated)" in "".join(str(cell) for cell in plan_tables(found)[0].columns[0].cells)
    json.dumps(found.to_json(), allow_nan=False)


def test_what_is_too_large_for_interference_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = {"schedule": ["ring"], "zero": [3], "checkpoint": ["full"]}
    assert not plan(STEP, Here(), axes=axes, top=1).candidates[0]["interference_neglected"]
    monkeypatch.setattr("simulator.contention.MOST_FOLLOWED", 1)
    found = plan(STEP, Here(), axes=axes, top=1)
    assert found.candidates[0]["interference_neglected"]
    cells = list(plan_tables(found)[0].columns[0].cells)
    assert "without interference, so faster than it is" in " ".join(str(cells[0]).split())


def test_an_interruption_before_any_look_says_so() -> None:
    with pytest.raises(InputError, match="nothing can run before the interruption"):
        plan(STEP, Impatient(1), axes={"schedule": ["ring"], "zero": [3], "checkpoint": ["full"]})


def test_candidates_and_reasons_are_all_there() -> None:
    found: PlanResult = plan(PREFILL, Here(), top=2, axes={"schedule": ["ring", "ulysses", "usp"], "tp": [1, 2]})
    listed = {str(each) for each in list_candidates(PREFILL, {"schedule": ["ring", "ulysses", "usp"], "tp": [1, 2]})}
    named = {each["candidate"]: each["reason"] for each in found.dropped}
    assert listed == named.keys() | {each["candidate"] for each in found.candidates}
    assert all(named.values())

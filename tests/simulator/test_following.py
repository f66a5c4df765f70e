"""Deep steps from few layers: what is followed is what the whole step's simulation gives, to the last digit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cost_models.models import load_model
from simulator import run
from simulator.following import Followed, follow_layers
from simulator.planning.plan import base_point
from simulator.planning.points import Outcome, run_point
from simulator.request import SimulationRequest
from simulator.simulate import simulate

DEEP = SimulationRequest(
    model=replace(load_model("llama-3.1-8b"), layers=16), schedule="usp", gpus=8, batch=2, seq_len="512k", zero=3,
    checkpoint="full", topology="dgx-h100", layers="model",
)  # fmt: skip
"""Long enough that the first layer's work is past all that the power limit does later."""

FOLLOWED: list[dict[str, Any]] = [
    {},
    {"schedule": "allgather"},
    {"schedule": "magi", "checkpoint": "attention"},
    {"schedule": "ulysses", "zero": 0, "checkpoint": "none"},
    {"offload": "optimizer", "tp": 2},
    {"microbatches": 2},
    {"tp": 2, "tp_version": 3, "dp": 2},
    {"method": "lora:rank=8"},
    {"pass_": "prefill", "zero": 0, "checkpoint": "none", "schedule": "loongtrain"},
    {"gpus": 512, "batch": 64, "dp": 32},
    {"gpus": 8, "seq_len": "64k", "topology": "dgx-a100", "checkpoint": "attention", "zero": 0},
]

REFUSED: list[dict[str, Any]] = [
    {"pp": 2, "microbatches": 2},  # stages overlap
    {"zero": 1},  # gathers of the optimizer fall behind its products
    {"offload": "activations"},  # the last layer's stay
    {"seq_len": "64k"},  # the clock falls until near the end
    {"schedule": "ring"},  # ranks run apart, more slowly in each layer
    {"pass_": "decode", "zero": 0, "checkpoint": "none", "schedule": "ring", "tp": 8},
    {"interference": False},
    {"engine": "des"},
]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Followed | None]:
    """What following came to."""
    found: list[Followed | None] = []

    def follow(*arguments: Any) -> Followed | None:
        found.append(follow_layers(*arguments))
        return found[-1]

    monkeypatch.setattr(run, "follow_layers", follow)
    return found


def whole(request: SimulationRequest, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    monkeypatch.setattr(run, "follow_layers", lambda *_: None)
    return run_point(base_point(request))


@pytest.mark.parametrize("options", FOLLOWED, ids=str)
def test_what_is_followed_is_the_whole(
    options: dict[str, Any], seen: list[Followed | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = replace(DEEP, **options)
    followed = run_point(base_point(request))
    assert seen[0] is not None and seen[0].copies > 4
    assert followed == whole(request, monkeypatch)


@pytest.mark.parametrize("options", REFUSED, ids=str)
def test_what_is_not_periodic_is_simulated_whole(options: dict[str, Any], seen: list[Followed | None]) -> None:
    outcome = run_point({**base_point(replace(DEEP, **options)), **({"engine": "des"} if "engine" in options else {})})
    assert outcome.get("time_s") or options.get("pass_") == "decode"
    assert not any(seen)


def test_a_timeline_is_of_all_layers(seen: list[Followed | None]) -> None:
    result = simulate(replace(DEEP, engine="maxplus"))
    assert not seen and result.timeline is not None
    assert sum(info.kind == "attention_backward" for info in result.timeline.operations) == 16

"""A recording that is kept gives what a fresh one does, and is kept as long as there is room."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.compare import compare
from simulator.recorded import Recordings
from simulator.request import SimulationRequest
from simulator.simulate import simulate

REQUEST = SimulationRequest(model="llama-3.1-8b", topology="dgx-h100", seq_len="8k", gpus=4, engine="maxplus")


@pytest.mark.parametrize("change", [{}, {"what_if": "nvlink=0.5,flop=2"}, {"mask": "full"}, {"kernel": "triton"}])
def test_results_do_not_depend_on_what_was_simulated_before(change: dict[str, str]) -> None:
    kept, request = Recordings(), replace(REQUEST, **change)
    compare(REQUEST, recordings=kept)
    assert compare(request, recordings=kept) == compare(request)
    alone = simulate(replace(request, schedule="ring"))
    again = simulate(replace(request, schedule="ring"), recordings=kept)
    assert again == alone and again.memory_curve == alone.memory_curve


@pytest.mark.parametrize("layers", ["layer", "model"])
def test_layers_and_models_are_told_apart(layers: str) -> None:
    kept = Recordings()
    request = replace(REQUEST, schedule="ring", layers=layers)
    for other in (request, replace(request, checkpoint="full"), replace(request, tp=2)):
        assert simulate(other, recordings=kept) == simulate(other)


def test_other_costs_record_nothing() -> None:
    kept = Recordings()
    simulate(replace(REQUEST, schedule="ring"), recordings=kept)
    assert kept.made == 1
    simulate(replace(REQUEST, schedule="ring", what_if="hbm=2,nvlink=0.5"), recordings=kept)
    assert kept.made == 1


def test_the_oldest_goes_first() -> None:
    room = Recordings(most_operations=1)
    for schedule in ("ring", "ulysses", "ring"):
        simulate(replace(REQUEST, schedule=schedule), recordings=room)
    assert len(room._kept) == 1

"""Kernels of a run: their FLOP are the result's, their time is the rank's, none is above the ceilings."""

from __future__ import annotations

from itertools import groupby

import pytest

import attnsim
from simulator.request import SimulationRequest

REQUEST = {"model": "llama-3.1-8b", "topology": "dgx-h100", "seq_len": "32k", "gpus": 4, "engine": "maxplus",
           "interference": False}  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"layers": "layer"}, {"layers": "model", "pass_": "prefill"}])
def test_work_and_time_are_those_of_the_result(options: dict[str, str]) -> None:
    result = attnsim.simulate(SimulationRequest(schedule="ulysses", **REQUEST, **options))
    assert result.roofline is not None
    kernels = result.roofline.kernels
    assert 4 * sum(each.flop * each.count for each in kernels) == pytest.approx(result.flop_total, rel=1e-9)
    assert sum(each.time_ns * each.count for each in kernels) == pytest.approx(1e9 * result.compute_s, rel=1e-6)


def test_nothing_is_above_the_ceilings() -> None:
    roofline = attnsim.simulate(SimulationRequest(schedule="usp", **REQUEST)).roofline
    assert roofline is not None and len(roofline.kernels) > 4
    for each in roofline.kernels:
        assert each.flop / (each.time_ns / 1e9) <= roofline.peak_flop_per_s
        assert each.bytes / (each.time_ns / 1e9) <= roofline.memory_bytes_per_s


def test_what_is_held_at_the_peak_adds_up_to_it() -> None:
    request = SimulationRequest(schedule="ring", layers="model", checkpoint="full", loss_chunks=16, **REQUEST)
    result = attnsim.simulate(request)
    holders = result.memory_holders or ()
    assert sum(each.bytes for each in holders) == result.peak_memory_bytes
    by_category = {
        name: list(each) for name, each in groupby(sorted(holders, key=lambda h: h.category), lambda h: h.category)
    }
    assert {"weights", "weight gradients", "optimizer states", "activations"} <= by_category.keys()
    assert {each.name for each in by_category["optimizer states"]} >= {"optimizer of q_proj", "optimizer of lm_head"}
    served = attnsim.simulate(SimulationRequest(schedule="ring", layers="model", pass_="decode", **REQUEST))
    assert {each.category for each in served.memory_holders or ()} >= {"weights", "KV cache"}

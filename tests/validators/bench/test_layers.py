"""Microbenchmarks of layers: every memory-bound kind of a step is a case, and runs by the executors' code."""

from __future__ import annotations

import pytest
import torch

from cost_models.units import dtype_bytes
from validators.bench import layers
from validators.bench.copies import DIRECTIONS, copy_cases, run_copy
from validators.bench.gemm import run_gemm
from validators.bench.layers import layer_cases, run_layer
from validators.bench.plan import Case
from validators.bench.timing import Timer

TIMER = Timer(torch.device("cpu"), seconds=1e-6, most=1, least=1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "TOKENS", (32,))
    monkeypatch.setattr(layers, "SHAPES", ((32, 4, 2, 8, 48, 64),))


@pytest.mark.usefixtures("small")
def test_every_case_runs() -> None:
    cases = [case for case in layer_cases() if case.kind == "elementwise"]
    kinds = {case.parameters["operation_kind"] for case in cases}
    assert kinds >= {"rms_norm", "rms_norm_dx", "rms_norm_dw", "rope", "swiglu", "swiglu_backward", "add", "embed",
                     "embed_dw", "cross_entropy", "cross_entropy_backward", "adamw"}  # fmt: skip
    assert all(len(run_layer(case, TIMER)) == 1 for case in cases)


@pytest.mark.usefixtures("small")
def test_bytes_of_the_loss_are_those_of_its_logits() -> None:
    (case,) = [each for each in layer_cases() if each.parameters.get("operation_kind") == "cross_entropy"]
    assert case.parameters["bytes_read"] == 32 * 64 * dtype_bytes("bf16") + 32 * 8


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_copy_moves_bytes(direction: str) -> None:
    assert run_copy(Case("host_copy", {"direction": direction, "bytes": 1000}), TIMER)[0] > 0
    assert len(copy_cases()) == 10


@pytest.mark.parametrize("form", [None, "dx", "dw"])
def test_products_of_each_form_are_right(form: str | None) -> None:
    parameters = {"m": 40, "n": 24, "k": 16, "dtype": "bf16"} | ({"form": form} if form else {})
    samples, errors = run_gemm(Case("gemm", parameters), TIMER)
    assert len(samples) == 1
    assert errors["product"] < 6e-3

"""A single layer's passes equal autograd: output, and gradients of its input and weights."""

from __future__ import annotations

import pytest
import torch

from cost_models.masks import parse_mask
from simulator.program.program import Program
from simulator.steps.layer_pass import record_layer
from tests.validators.executors.cases import mask_matrix
from tests.validators.steps.cases import StepCase, weight_errors
from validators.executors.loopback import Loopback, execute
from validators.executors.shards import Globals
from validators.transformer import dense_layer

CASES = [
    StepCase("ring", 2, batch=2),
    StepCase("burst:partition=striped", 2, {"checkpoint": "attention"}, mask="sliding-window:window=5,causal=true"),
    StepCase("ulysses", 4, {"tp": 2}),
]


def reference(case: StepCase, inputs: Globals) -> tuple[torch.Tensor, Globals]:
    weights = {name: each.requires_grad_() for name, each in case.weights().items()}
    x = inputs["x"][:, :, 0].clone().requires_grad_()
    allowed = mask_matrix(parse_mask(case.mask, case.seq_len), case.seq_len)
    y = dense_layer(case.shape, weights, "layers.0.", x, allowed)
    y.backward(inputs["dy"][:, :, 0])
    assert x.grad is not None
    found = {f"d {name}": each.grad for name, each in weights.items() if each.grad is not None}
    return y.detach(), {**found, "dx": x.grad[:, :, None]}


def sum_over_context(case: StepCase, done: Loopback, names: list[str]) -> None:
    """Each context parallel rank has the gradient of its own tokens."""
    place = case.plan.grid.coordinate("tp").tolist()
    for name in names:
        parts = done.shards[name]
        totals = [sum(part for part, other in zip(parts, place, strict=True) if other == tp) for tp in place]
        done.shards[name] = totals  # type: ignore[assignment]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("pass_", ["both", "forward"])
def test_equals_autograd(case: StepCase, pass_: str) -> None:
    program = Program(case.plan.world)
    record_layer(case.plan, pass_, program)
    generator = torch.Generator().manual_seed(3)
    size = (case.batch, case.seq_len, 1, case.shape.hidden)
    inputs = {name: torch.randn(size, generator=generator, dtype=torch.float64) for name in ("x", "dy")}
    done = execute(program, {**case.weights(), **inputs})
    y, wanted = reference(case, inputs)
    assert (done.results["y"][:, :, 0] - y).abs().max() < 1e-12
    if pass_ == "forward":
        assert set(done.shards) == {"y"}
        return
    assert (done.results["dx"] - wanted.pop("dx")).abs().max() < 1e-11
    sum_over_context(case, done, list(wanted))
    assert len(wanted) == 9
    assert max(weight_errors(done, wanted).values()) < 1e-11

"""Products in FP8, executed on all ranks, equal a plain model whose products round their operands, both ways.

Each rank scales by the largest magnitude of its own tokens, so the plain model rounds a tensor part by part.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cost_models.masks import parse_mask
from cost_models.models import ModelShape
from simulator.layers.fp8 import E4M3, E5M2
from tests.validators.executors.cases import mask_matrix
from tests.validators.steps.cases import StepCase, moments_after_adamw, total_loss, weight_errors
from traces.errors import InputError
from validators.executors.rounding import rounded
from validators.executors.shards import token_index
from validators.transformer import attend, rms_norm, rotate

SHAPE = ModelShape("fp8", 2, 32, 4, 4, 8, 8, 48, 48)
Parts = list[tuple[slice, Tensor]]


class Product(torch.autograd.Function):
    """x w^T of rounded operands; its gradients are products of rounded operands too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, parts: Parts) -> Tensor:
        x8, w8 = by_part(x, E4M3, parts), rounded(w, E4M3)
        ctx.save_for_backward(x8, w8)
        ctx.parts = parts
        return x8 @ w8.T

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        (x8, w8), dy8 = ctx.saved_tensors, by_part(dy, E5M2, ctx.parts)
        return dy8 @ w8, dy8.flatten(0, 1).T @ x8.flatten(0, 1), None


def by_part(x: Tensor, form: str, parts: Parts) -> Tensor:
    out = torch.empty_like(x)
    for rows, tokens in parts:
        out[rows, tokens] = rounded(x[rows, tokens], form)
    return out


def parts_of(case: StepCase) -> Parts:
    """Sequences and tokens of each rank and microbatch."""
    plan = case.plan.resolved()
    partition, size = plan.schedule.input_partition(plan.setup), plan.sequences
    tokens = [token_index(partition.ranges(rank)) for rank in range(plan.grid.cp)]
    return [(slice(first, first + size), each) for first in range(0, case.batch, size) for each in tokens]


def losses(case: StepCase, w: dict[str, Tensor]) -> Tensor:
    """Of each token, of a plain model."""
    shape, parts = case.shape, parts_of(case)
    allowed = mask_matrix(parse_mask(case.mask, case.seq_len), case.seq_len)
    x = w["embed_tokens"][case.tokens()["ids"][:, 0]]
    for index in range(shape.layers):
        at = f"layers.{index}."
        n = rms_norm(x, w[at + "input_norm"])
        q, k, v = [Product.apply(n, w[f"{at}{name}_proj"], parts).unflatten(2, (4, 8)) for name in "qkv"]
        o = attend(rotate(q, 8), rotate(k, 8), v, allowed).flatten(2)
        x = x + Product.apply(o, w[at + "o_proj"], parts)
        n = rms_norm(x, w[at + "post_norm"])
        gate, up = [Product.apply(n, w[f"{at}{name}_proj"], parts) for name in ("gate", "up")]
        x = x + Product.apply(torch.nn.functional.silu(gate) * up, w[at + "down_proj"], parts)
    logits = rms_norm(x, w["norm"]) @ w["lm_head"].T
    labels = case.tokens()["labels"][:, 0]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)


CASES = [
    StepCase("ring", 1, {"fp8": True}, shape=SHAPE),
    StepCase("ring", 2, {"fp8": True, "checkpoint": "full"}, seq_len=32, shape=SHAPE),
    StepCase("ulysses", 4, {"fp8": True, "dp": 2, "zero": 3, "checkpoint": "attention"}, batch=4, shape=SHAPE),
    StepCase("ring", 4, {"fp8": True, "pp": 2, "microbatches": 2, "zero": 1}, batch=2, seq_len=32, shape=SHAPE),
    StepCase("ring", 2, {"fp8": True, "dp": 2, "microbatches": 2, "zero": 2, "loss_chunks": 2}, batch=4, shape=SHAPE),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_training_step(case: StepCase) -> None:
    done, weights = case.execute(), case.weights()
    for each in weights.values():
        each.requires_grad_(True)
    loss = losses(case, weights)
    loss.mean().backward()
    assert total_loss(case, done) == pytest.approx(loss.sum().item(), rel=1e-10)
    wanted = moments_after_adamw(case, weights)
    wrong = {name: error for name, error in weight_errors(done, wanted).items() if not error < 1e-11}
    assert not wrong


def test_rounding_is_seen() -> None:
    """Of the same model with exact products the loss differs, by as much as three bits of a mantissa can."""
    case = CASES[0]
    exact, fp8 = replace(case, options={}).execute(), case.execute()
    difference = abs(total_loss(case, exact) / total_loss(case, fp8) - 1)
    assert 1e-5 < difference < 0.05


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (StepCase("ring", 1, {"fp8": True}), "multiples of 16"),
        (StepCase("ring", 2, {"fp8": True}, seq_len=16, shape=SHAPE), "multiple of 16 tokens"),
        (StepCase("ring", 1, {"fp8": True, "method": "lora:rank=4"}, shape=SHAPE), "no FP8 products"),
    ],
)
def test_what_it_does_not_go_with(case: StepCase, message: str) -> None:
    with pytest.raises(InputError, match=message):
        case.program()

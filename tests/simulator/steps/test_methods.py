"""What recorded steps of fine-tuning methods cost equals the closed forms: products, memory, gradient traffic."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cost_models.finetuning import Adapters, Method, parse_method
from cost_models.finetuning.formulas import (
    attention_flop,
    gradient_bytes,
    layer_matrices,
    step_flop,
    stored_bytes,
    trained_weights,
)
from cost_models.masks import parse_mask
from cost_models.models import ModelShape
from cost_models.models.shape import MlaShape
from simulator.engines.memory import Memory
from simulator.engines.traffic import Traffic
from simulator.fanout import Fanout
from simulator.program.operations import Buffer, Operation
from simulator.program.tape import Ignore
from simulator.schedules import parse_schedule
from simulator.steps.plan import Plan, StepOptions
from simulator.steps.train import record_training_step
from traces.errors import InputError

SHAPE = ModelShape("model", 6, 512, 8, 2, 64, 64, 1024, 4096)
TOKENS, RANKS = 2048, 4


class Held(Ignore):
    """Bytes that rank 0 holds at the start, and what it sends to sum gradients."""

    def __init__(self) -> None:
        self.bytes = self.gradient_bytes = 0
        self.started = False

    def allocate(self, buffer: Buffer) -> None:
        if buffer.is_input and not self.started and buffer.dtype != "int64":
            self.bytes += int(buffer.bytes)

    def operation(self, operation: Operation) -> None:
        self.started = True
        if operation.lane == "comm:dp":
            self.gradient_bytes += int(operation.bytes_sent)  # type: ignore[call-overload]


def record(method: str, **options: Any) -> tuple[Traffic, Held, Memory]:
    mask = parse_mask("causal", TOKENS)
    plan = Plan(SHAPE, parse_schedule("ring"), options.pop("batch", 1), TOKENS, "bf16", mask, RANKS, RANKS,
                StepOptions(method=method, **options))  # fmt: skip
    traffic, held, memory = Traffic(plan.world), Held(), Memory(RANKS)
    record_training_step(plan, Fanout(traffic, held, memory))
    return traffic, held, memory


def unneeded_flop(method: Method) -> float:
    """Gradients in the lowest layer that nothing needs, because what lies below is frozen (embedding included)."""
    size = layer_matrices(SHAPE)
    if isinstance(method, Adapters):  # they come after attention
        own = 2 * TOKENS * method.size * SHAPE.hidden
        return own + sum(2 * TOKENS * size[name].size for name in "qkvo") + 2.5 * attention_flop(SHAPE, TOKENS)
    if method.low_rank is None:
        return 0
    rank, targets = method.low_rank
    assert {"q", "v"} <= set(targets)
    products = sum(2 * TOKENS * size[name].size for name in "qkv")
    return method.answers * (products + sum(2 * TOKENS * rank * size[name].into for name in "qkv" if name in targets))


METHODS = (
    "full", "lora:rank=8", "lora:rank=4,targets=all", "qlora:rank=8", "adapters:size=16", "dpo", "dpo:reference=stored",
    "dpo:rank=8", "orpo", "orpo:rank=4,targets=all",
)  # fmt: skip


@pytest.mark.parametrize("checkpoint", ["none", "full", "attention"])
@pytest.mark.parametrize("name", METHODS)
def test_flop(name: str, checkpoint: str) -> None:
    method = parse_method(name)
    traffic, _, _ = record(name, checkpoint=checkpoint)
    assert traffic.flop == step_flop(method, SHAPE, TOKENS, checkpoint) - unneeded_flop(method)


def test_flop_of_half_fine_tuning() -> None:
    """On average over draws half of dW; two layers' draws are complementary only in number."""
    flop = [record(f"half:seed={seed}")[0].flop for seed in range(12)]
    assert len(set(flop)) > 1
    assert sum(flop) / len(flop) == pytest.approx(step_flop(parse_method("half"), SHAPE, TOKENS), rel=0.02)


def test_dora_multiplies_its_low_rank_matrices_once_a_step() -> None:
    """B A per matrix and step, 2 r in out FLOP on every rank, forward and, if recomputed, again."""
    once = RANKS * sum(2 * 8 * layer_matrices(SHAPE)[name].size for name in "qv") * SHAPE.layers
    lora, dora = record("lora:rank=8")[0].flop, record("dora:rank=8")[0].flop
    assert dora - lora == once
    assert (
        record("dora:rank=8", checkpoint="full")[0].flop - record("lora:rank=8", checkpoint="full")[0].flop == 2 * once
    )


@pytest.mark.parametrize(
    "name", ["full", "lora:rank=8", "qlora:rank=8", "adapters:size=16", "dora:rank=8,targets=all", "dpo", "dpo:rank=8"]
)
def test_held_between_steps(name: str) -> None:
    """Weights and optimizer states: all but the gradients (2 bytes per trained weight) of the closed form."""
    method = parse_method(name)
    _, held, _ = record(name)
    want = stored_bytes(method, SHAPE) - 2 * trained_weights(method, SHAPE)
    assert held.bytes == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("name", ["full", "lora:rank=8", "dora:rank=8", "adapters:size=16"])
def test_gradient_traffic(name: str) -> None:
    _, held, _ = record(name)
    assert held.gradient_bytes == pytest.approx(gradient_bytes(parse_method(name), SHAPE, RANKS), rel=1e-3)


def test_half_fine_tuning_sends_half_the_gradients() -> None:
    sent = [record(f"half:seed={seed}")[1].gradient_bytes for seed in range(12)]
    want = gradient_bytes(parse_method("half"), SHAPE, RANKS)
    assert sum(sent) / len(sent) == pytest.approx(want, rel=0.03)


def test_fsdp_gathers_packed_weights() -> None:
    """Zero 3 gathers frozen weights twice; in NF4 0.516 bytes each instead of 2."""
    lora, qlora = (record(f"{name}:rank=8,targets=all", zero=3)[1].gradient_bytes for name in ("lora", "qlora"))
    matrices = SHAPE.layers * sum(each.size for each in layer_matrices(SHAPE).values())
    assert lora - qlora == pytest.approx((RANKS - 1) / RANKS * 2 * (2 - 0.516) * matrices, rel=1e-3)


def test_what_a_method_saves_of_memory() -> None:
    """A frozen matrix without an update does not keep its input."""
    peak = {name: int(record(name, loss_chunks=8)[2].peak_bytes.max()) for name in ("full", "lora", "lora:targets=all")}
    assert peak["lora"] < peak["lora:targets=all"] < peak["full"]


UNGATED = replace(SHAPE, name="ungated", gated=False)
LATENT = ModelShape("latent", 2, 512, 8, 8, 96, 64, 1024, 4096, mla=MlaShape(128, 64, 64, 32))


@pytest.mark.parametrize("method", ["full", "lora:rank=4,targets=all", "dora:rank=4,targets=all", "adapters:size=8"])
def test_a_feed_forward_without_gate_costs_its_closed_form(method: str) -> None:
    """Six matrices a layer: 4 n d I in place of 6, and nothing added to a gate."""
    flop = []
    for shape in (SHAPE, UNGATED):
        plan = Plan(shape, parse_schedule("ring"), 1, TOKENS, "bf16", parse_mask("causal", TOKENS), RANKS, RANKS,
                    StepOptions(method=method))  # fmt: skip
        traffic = Traffic(plan.world)
        record_training_step(plan, traffic)
        flop.append(traffic.flop)
    gated, ungated = (step_flop(parse_method(method), shape, TOKENS) for shape in (SHAPE, UNGATED))
    gate = SHAPE.hidden * SHAPE.intermediate * SHAPE.layers * 2 * TOKENS * (3 if method == "full" else 2)
    assert gated - ungated == pytest.approx(gate, rel=0.03)
    products = 2 * 4 * SHAPE.hidden * SHAPE.intermediate * SHAPE.layers * RANKS if "dora" in method else 0  # of B A
    assert flop[0] - flop[1] == gated - ungated + products
    assert method != "full" or flop[1] == ungated


@pytest.mark.parametrize(
    ("shape", "method", "message"),
    [
        (LATENT, "lora:rank=4", "latent attention has others"),
        (LATENT, "dora:rank=4,targets=all", "latent attention has others"),
        (LATENT, "half", "latent attention has others"),
        (UNGATED, "half", "has no gate"),
        (UNGATED, "lora:rank=4,targets=gate+up", "ungated has none"),
    ],
)
def test_matrices_that_a_layer_does_not_have_are_refused(shape: ModelShape, method: str, message: str) -> None:
    plan = Plan(shape, parse_schedule("ring"), 1, TOKENS, "bf16", parse_mask("causal", TOKENS), RANKS, RANKS,
                StepOptions(method=method))  # fmt: skip
    with pytest.raises(InputError, match=message):
        record_training_step(plan, Ignore())
    record_training_step(replace(plan, options=StepOptions(method="lora:rank=4,targets=o")), Ignore())

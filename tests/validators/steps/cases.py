"""Steps of a small model on a grid, and what autograd says of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import torch

from cost_models.finetuning import Dpo
from cost_models.masks import parse_mask
from cost_models.models import ModelShape
from cost_models.models.shape import MlaShape, MoeShape
from cost_models.packing import FORMS
from simulator.grid import Grid
from simulator.layers.adapters import adapt, freeze_ends
from simulator.layers.build import layer_weights
from simulator.layers.parameter import Parameter
from simulator.layers.preference import SETTINGS
from simulator.layers.tensor_parallel import TensorParallel
from simulator.layers.weights import WeightMaker
from simulator.program.program import Program
from simulator.schedules import parse_schedule
from simulator.steps.inference import record_decode
from simulator.steps.parameters import ADAMW
from simulator.steps.plan import Plan, StepOptions
from simulator.steps.train import record_training_step
from tests.validators.executors.cases import mask_matrix
from validators.executors.loopback import Loopback, execute
from validators.executors.packing import pack
from validators.executors.shards import cut, token_index
from validators.transformer import draw_weights, model_loss, pair_loss

SHAPE = ModelShape("small", 2, 24, 4, 2, 6, 6, 40, 48)
EXPERTS = replace(SHAPE, name="experts", moe=MoeShape(experts=4, top_k=2, shared=1, intermediate=10, first_dense=1))
TIED = replace(SHAPE, name="tied", tied_embeddings=True)
UNGATED = replace(SHAPE, name="ungated", gated=False)
LATENT = ModelShape("latent", 2, 24, 4, 4, 10, 8, 40, 48, mla=MlaShape(q_lora=12, kv_lora=8, nope=6, rope=4))
DEEPSEEK = replace(LATENT, name="deepseek", moe=EXPERTS.moe, mla=MlaShape(q_lora=None, kv_lora=8, nope=6, rope=4))


@dataclass(frozen=True)
class StepCase:
    """A training step."""

    spec: str
    ranks: int
    options: dict[str, Any] = field(default_factory=dict)
    batch: int = 1
    seq_len: int = 16
    mask: str = "causal"
    shape: ModelShape = SHAPE
    ranks_per_node: int | None = None

    @property
    def plan(self) -> Plan:
        mask = parse_mask(self.mask, self.seq_len)
        schedule = parse_schedule(self.spec)
        per_node = self.ranks_per_node or self.ranks
        options = StepOptions(**self.options)
        return Plan(self.shape, schedule, self.batch, self.seq_len, "bf16", mask, self.ranks, per_node, options)

    def program(self) -> Program:
        program = Program(self.plan.world)
        record_training_step(self.plan, program)
        return program

    def decoding(self) -> Program:
        """A Program that decodes."""
        program = Program(self.plan.world)
        record_decode(self.plan, program)
        return program

    def context(self) -> dict[str, torch.Tensor]:
        """Weights, any keys and values, and the last token, of the whole model."""
        generator = torch.Generator().manual_seed(5)
        size = (self.batch, self.seq_len, self.shape.kv_heads, self.shape.head_dim)
        caches = {
            f"{name} {index}": torch.randn(size, generator=generator, dtype=torch.float64)
            for index in range(self.shape.layers) for name in ("keys", "values")
        }  # fmt: skip
        if self.plan.options.kv_dtype:
            caches = {name: pack(each, FORMS[self.plan.options.kv_dtype]).double() for name, each in caches.items()}
        return {**self.weights(), **caches, "last ids": self.tokens()["ids"][:, :, -1:].double()}

    def parameters(self) -> dict[str, Parameter]:
        """Of the whole model."""
        maker, method = WeightMaker(self.shape, TensorParallel(Grid())), self.plan.options.parsed_method
        layers = [adapt(method, maker, index, layer_weights(maker, index)) for index in range(self.shape.layers)]
        made = [freeze_ends(method, maker.ends()), *layers]
        return {parameter.name: parameter for each in made for parameter in each.values()}

    def weights(self) -> dict[str, torch.Tensor]:
        """Of the whole model, as matrices [out, in] and vectors."""
        plain = replace(self, options={}).parameters() if self.options else self.parameters()
        shapes = {
            name: (each.planes, each.rows, each.columns)[each.planes == 1 :] if each.rows > 1 else (each.columns,)
            for name, each in self.parameters().items()
        }
        drawn = draw_weights({name: size for name, size in shapes.items() if name in plain})
        return drawn | draw_weights({name: size for name, size in shapes.items() if name not in plain}, seed=4)

    def moments(self) -> dict[str, torch.Tensor]:
        """Of the optimizer, in the middle of training."""
        generator, drawn = torch.Generator().manual_seed(2), {}
        for name, weight in self.weights().items():
            for kind, size in (("m", 1e-2), ("v", 1e-4)):
                drawn[f"{kind} {name}"] = torch.rand(weight.shape, generator=generator, dtype=torch.float64) * size
        return drawn

    def tokens(self) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        size = (self.batch * self.plan.options.parsed_method.answers, 1, self.seq_len)
        return {name: torch.randint(0, self.shape.vocab, size, generator=generator) for name in ("ids", "labels")}

    def execute(self) -> Loopback:
        return execute(self.program(), self.inputs())

    def inputs(self) -> dict[str, torch.Tensor]:
        """Whole tensors by name."""
        weights = self.weights()
        states = self.moments()
        masters = {f"master {name}": each for name, each in weights.items()}
        tokens = {name: each.double() for name, each in self.tokens().items()}
        reference = {f"reference.{name}": each for name, each in self.reference_weights().items()}
        stored = {"reference": self.reference_log_probability()} if "stored" in str(self) else {}
        return {**weights, **states, **masters, **tokens, **reference, **stored}

    def reference_weights(self) -> dict[str, torch.Tensor]:
        """Of the reference model of preference training: others than the policy's."""
        weights = replace(self, options={}).weights()
        return {name: each * 1.1 for name, each in weights.items()}

    def reference_log_probability(self) -> torch.Tensor:
        """Of each sequence [2 n, 1, 1]."""
        method = self.plan.options.parsed_method
        own = isinstance(method, Dpo) and method.where == "adapters"
        weights = replace(self, options={}).weights() if own else self.reference_weights()
        return -self.token_losses(weights).sum(dim=1)[:, None, None]

    def token_losses(self, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        """Of a plain model."""
        tokens = {name: each[:, 0] for name, each in self.tokens().items()}
        allowed = mask_matrix(parse_mask(self.mask, self.seq_len), self.seq_len)
        return model_loss(self.shape, weights, tokens["ids"], tokens["labels"], allowed, self.visits())

    def visits(self) -> torch.Tensor | None:
        """Which experts the tokens visit [B, S, E], from the rows of the ranks that hold them."""
        if self.shape.moe is None:
            return None
        plan = self.plan.resolved()
        partition, count = plan.schedule.input_partition(plan.setup), plan.sequences
        visits = torch.zeros(self.batch, self.seq_len, self.shape.moe.experts, dtype=torch.bool)
        for microbatch, rank in product(range(plan.options.microbatches), range(self.ranks)):
            own = token_index(partition.ranges(int(plan.grid.context[rank])))
            routing = plan.routing(len(own) * count)
            row = routing.counts[routing.place[rank]]
            expert = torch.repeat_interleave(torch.arange(len(row)), torch.from_numpy(row))
            token = torch.arange(len(expert)) % (len(own) * count)
            first = (int(plan.grid.coordinate("dp")[rank]) * plan.options.microbatches + microbatch) * count
            visits[first + token // len(own), own[token % len(own)], expert] = True
        return visits

    def loss(self, tokens: torch.Tensor) -> torch.Tensor:
        """What is minimised, from the losses of the tokens."""
        method = self.plan.options.parsed_method
        if method.answers == 1:
            return tokens.mean()
        reference = self.reference_log_probability()[:, 0, 0]
        return pair_loss(method.name, -tokens.sum(dim=1), reference, SETTINGS[method.name], self.seq_len)

    def __str__(self) -> str:
        options = ",".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.spec} P={self.ranks} B={self.batch} {options} {self.mask} {self.shape.name}"


def reference_step(case: StepCase) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss of each token; weights and first moments after a step of AdamW, by autograd."""
    parameters = case.parameters()
    weights = {name: each.requires_grad_(parameters[name].trainable) for name, each in case.weights().items()}
    loss = case.token_losses(weights)
    case.loss(loss).backward()
    weights = {name: each for name, each in weights.items() if each.requires_grad}
    first = moments_after_adamw(case, weights)
    return loss.detach(), first | {name: each.detach() for name, each in weights.items()}


def moments_after_adamw(case: StepCase, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Update weights that have gradients in place; their first moments."""
    o = ADAMW
    optimizer = torch.optim.AdamW(
        weights.values(), o["learning_rate"], (o["beta1"], o["beta2"]), o["epsilon"], o["weight_decay"]
    )
    moments = case.moments()
    for name, weight in weights.items():
        optimizer.state[weight] = {
            "step": torch.tensor(o["step"] - 1.0), "exp_avg": moments[f"m {name}"], "exp_avg_sq": moments[f"v {name}"],
        }  # fmt: skip
    optimizer.step()
    return {f"m {name}": optimizer.state[weight]["exp_avg"] for name, weight in weights.items()}


def total_loss(case: StepCase, done: Loopback) -> float:
    """Sum over the tokens of all microbatches, each counted once."""
    grid = case.plan.grid
    counted = (grid.coordinate("tp") == 0) & (grid.coordinate("pp") == grid.pp - 1)
    ranks = [rank for rank in range(grid.n_ranks) if counted[rank]]
    parts = [name for name in done.shards if name.startswith("lse ")]
    return sum(
        (done.shards[name][rank] - done.shards[name.replace("lse", "target")][rank]).sum().item()
        for name in parts
        for rank in ranks
    )


def weight_errors(done: Loopback, wanted: dict[str, torch.Tensor]) -> dict[str, float]:
    """Largest difference of any rank's part of each updated weight and moment, relative to its largest element."""
    errors = {}
    for name, want in wanted.items():
        worst, buffer = 0.0, done.buffers[name]
        for rank, part in enumerate(done.shards[name]):
            if part.numel():
                error = (part - cut(want, replace(buffer, layout=None), rank)).abs()
                worst = max(worst, torch.nan_to_num(error, nan=torch.inf).max().item())
        errors[name] = worst / want.abs().max().item()
    return errors

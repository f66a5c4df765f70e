"""A training step of a small Llama-shaped model, or one of its layers forward and backward, as it is measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cost_models.masks import parse_mask
from cost_models.models import ModelShape
from simulator.program.program import Program
from simulator.program.setup import Setup
from simulator.schedules import parse_schedule
from simulator.steps.layer_pass import record_layer
from simulator.steps.plan import Plan, StepOptions
from simulator.steps.train import record_training_step


@dataclass(frozen=True)
class StepConfiguration:
    """What is trained, and how.

    Parameters
    ----------
    what : ``model`` (a step with its optimizer) or ``layer`` (forward and backward).
    layers, hidden, heads, kv_heads, head_dim, intermediate, vocab : of the model.
    method, checkpoint, loss_chunks : as in `StepOptions`; 0 chunks are whole logits.
    kernel : does attention.
    ranks, ranks_per_node : of one context parallel group.
    """

    what: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    seq_len: int
    batch: int
    kernel: str
    method: str = "full"
    checkpoint: str = "none"
    loss_chunks: int = 0
    ranks: int = 1
    ranks_per_node: int = 1
    mask: str = "causal"
    dtype: str = "bf16"

    @property
    def shape(self) -> ModelShape:
        """Of the model."""
        return ModelShape(
            f"{self.layers}x{self.hidden}", self.layers, self.hidden, self.heads, self.kv_heads, self.head_dim,
            self.head_dim, self.intermediate, self.vocab, source="drawn",
        )  # fmt: skip

    @property
    def options(self) -> dict[str, Any]:
        """Those of `StepOptions` that are not the defaults."""
        given = {"method": self.method, "checkpoint": self.checkpoint, "loss_chunks": self.loss_chunks or None}
        return {name: value for name, value in given.items() if value != getattr(StepOptions, name)}

    def plan(self, spec: str) -> Plan:
        """As a step is recorded from."""
        mask = parse_mask(self.mask, self.seq_len)
        return Plan(
            self.shape, parse_schedule(spec), self.batch, self.seq_len, self.dtype, mask, self.ranks,
            self.ranks_per_node, StepOptions(**self.options),
        )  # fmt: skip

    @property
    def setup(self) -> Setup:
        """Ranks, and the attention of one layer."""
        return self.plan("ring").world

    def program(self, spec: str) -> Program:
        """Recorded."""
        plan = self.plan(spec)
        program = Program(plan.world)
        if self.what == "layer":
            record_layer(plan, "both", program)
        else:
            record_training_step(plan, program)
        return program

    def shortened(self, tokens: int) -> StepConfiguration:
        """The same with a sequence of at most so many tokens."""
        return replace(self, seq_len=min(self.seq_len, tokens))

    @property
    def label(self) -> str:
        """One line for people."""
        heads = f"H={self.heads}/{self.kv_heads} D={self.head_dim}"
        shape = f"{self.layers} layers C={self.hidden} {heads} I={self.intermediate} V={self.vocab}"
        chunks = f" loss-chunks={self.loss_chunks}" if self.loss_chunks else ""
        kept = f"{self.method} checkpoint={self.checkpoint}{chunks}"
        return f"{self.what} {shape} S={self.seq_len} B={self.batch} {kept} {self.kernel} P={self.ranks}"

"""Schedules on small workloads, and what dense attention says of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cost_models.masks import Mask, parse_mask
from cost_models.workload import AttentionWorkload
from simulator.program.program import Program
from simulator.program.setup import Setup
from simulator.recording import build_program
from simulator.schedules import parse_schedule
from validators.dense import dense_backward, dense_forward, row_dot
from validators.executors.shards import Globals, draw_inputs

SEQ_LEN = 48
Q_SCALE = 4.0
"""Scores are then so uneven that a merge with a wrong LSE is off by tens of percents."""


@dataclass(frozen=True)
class Case:
    """A schedule on a small workload."""

    spec: str
    ranks: int
    mask: str = "causal"
    heads: int = 8
    kv_heads: int = 8
    batch: int = 1
    ranks_per_node: int | None = None
    seq_len: int = SEQ_LEN

    @property
    def setup(self) -> Setup:
        """Head dims differ, so that a swap of them shows."""
        workload = AttentionWorkload(
            self.batch, self.seq_len, self.heads, self.kv_heads, 8, 6, "bf16", parse_mask(self.mask, self.seq_len)
        )
        return Setup(workload, self.ranks, self.ranks_per_node or self.ranks)

    def build(self) -> Program:
        """The Program of all passes."""
        return build_program(parse_schedule(self.spec), self.setup)

    def __str__(self) -> str:
        node = f"/{self.ranks_per_node}" if self.ranks_per_node else ""
        return f"{self.spec} {self.mask} P={self.ranks}{node} H={self.heads}/{self.kv_heads} B={self.batch}"


def dense_results(setup: Setup, inputs: Globals) -> Globals:
    """Output, LSE and gradients by dense attention."""
    q, k, v, do = (inputs[name] for name in ("q", "k", "v", "do"))
    allowed = mask_matrix(setup.workload.mask, setup.workload.seq_len)
    o, lse = dense_forward(q, k, v, allowed)
    gradients = dense_backward(q, k, v, do, lse, row_dot(do, o), allowed)
    return {"o": o, "lse": lse, **dict(zip(("dq", "dk", "dv"), gradients, strict=True))}


def mask_matrix(mask: Mask, seq_len: int) -> torch.Tensor:
    """The mask, from its definition."""
    tokens = torch.arange(seq_len).numpy()
    return torch.from_numpy(mask.allowed(tokens[:, None], tokens[None, :]))


def worst_error(got: Globals, want: Globals) -> float:
    """Largest difference of any output that was computed; infinite where NaN is in it."""
    errors = [torch.nan_to_num(got[name] - want[name], nan=torch.inf).abs().max().item() for name in got]
    return max(errors)


def scaled_inputs(setup: Setup, seed: int = 0) -> Globals:
    """Random inputs with uneven scores."""
    return draw_inputs(setup, seed, q_scale=Q_SCALE)

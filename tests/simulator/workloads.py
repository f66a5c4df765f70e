"""Small workloads for Programs."""

from __future__ import annotations

from cost_models.masks import parse_mask
from cost_models.workload import AttentionWorkload
from simulator.program.program import Program
from simulator.program.setup import Setup
from simulator.recording import build_program
from simulator.schedules import parse_schedule


def small_setup(
    ranks: int, *, ranks_per_node: int | None = None, seq_len: int = 240, heads: int = 8, kv_heads: int = 4,
    batch: int = 1, mask: str = "causal",
) -> Setup:  # fmt: skip
    """Head dim 16, bf16."""
    workload = AttentionWorkload(batch, seq_len, heads, kv_heads, 16, 16, "bf16", parse_mask(mask, seq_len))
    return Setup(workload, ranks, ranks_per_node or ranks)


def small_program(spec: str, setup: Setup, pass_: str | None = None) -> Program:
    """All passes of a schedule."""
    return build_program(parse_schedule(spec), setup, pass_)

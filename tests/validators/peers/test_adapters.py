"""Peers' own code over gloo computes dense attention, and what it sends is what our description of it sends."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from cost_models.workload import AttentionWorkload
from simulator.program.setup import Setup
from simulator.recording import build_program
from simulator.schedules import Schedule, parse_schedule
from tests.validators.executors.cases import Case, dense_results, scaled_inputs
from validators.executors.processes import run_ranks
from validators.executors.shards import assemble, load_shard
from validators.executors.world import World
from validators.peers.adapters import build_peer, why_missing
from validators.reference import relative_error

CASES = [
    Case("torch-cp", 2, kv_heads=4), Case("torch-cp:rotate=alltoall", 2, kv_heads=4),
    Case("torch-cp:rotate=alltoall,balance=false", 2, "full"),
    Case("ring-flash-attn", 2, "full", kv_heads=4), Case("ring-flash-attn:variant=zigzag", 2),
    Case("ring-flash-attn:variant=stripe", 2), Case("yunchang:ulysses=2", 4, batch=2),
]  # fmt: skip


def setup_of(case: Case) -> Setup:
    """Equal head dims, as these codes want them."""
    w = case.setup.workload
    return replace(case.setup, workload=AttentionWorkload(
        w.batch, 96, w.heads, w.kv_heads, 32, 32, "bf16", w.mask))  # fmt: skip


def schedule_of(case: Case) -> Schedule:
    return parse_schedule(case.spec).resolve(setup_of(case))


def run_case(world: World, case: Case) -> dict[str, torch.Tensor]:
    setup, schedule = setup_of(case), schedule_of(case)
    inputs = scaled_inputs(setup)
    program = build_program(schedule, setup)
    shards = {
        subject.name: load_shard(inputs, subject, world.rank, torch.bfloat16)  # type: ignore[union-attr, arg-type]
        for verb, subject in program.events
        if verb == "allocate" and getattr(subject, "is_input", False)
    }
    attend = build_peer(world, schedule, causal=str(setup.workload.mask) == "causal")
    results = attend(*[shards[name] for name in ("q", "k", "v", "do")])
    return {name: tensor.float().numpy() for name, tensor in results.items() if name != "lse"}


def run_cases(world: World, cases: list[Case]) -> list[dict[str, Any]]:
    return [run_case(world, case) for case in cases]


@cache
def results(ranks: int) -> dict[str, list[dict[str, Any]]]:
    runnable = [case for case in CASES if case.ranks == ranks and why_missing(schedule_of(case)) is None]
    by_rank = run_ranks(ranks, run_cases, runnable)
    return {str(case): [rank[i] for rank in by_rank] for i, case in enumerate(runnable)}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_peers_compute_dense_attention(case: Case) -> None:
    schedule, setup = schedule_of(case), setup_of(case)
    missing = why_missing(schedule)
    if missing:
        pytest.skip(missing)
    rounded = {name: tensor.to(torch.bfloat16).double() for name, tensor in scaled_inputs(setup).items()}
    want, program = dense_results(setup, rounded), build_program(schedule, setup)
    for name in ("o", "dq", "dk", "dv"):
        shards = [torch.from_numpy(rank[name]) for rank in results(case.ranks)[str(case)]]
        assert relative_error(assemble(program.outputs[name], shards, setup), want[name]) < 2e-2, name

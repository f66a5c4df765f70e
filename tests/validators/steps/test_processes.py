"""Training steps in real processes over gloo leave every rank with the weights that one process leaves it with."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from simulator.program.program import Program
from tests.validators.steps.cases import EXPERTS, StepCase
from validators.executors.distributed import RankExecutor, cut_input
from validators.executors.loopback import execute
from validators.executors.processes import run_ranks
from validators.executors.world import World
from validators.kernels.dense import DenseKernel

RANKS = 4
CASES = [
    StepCase("ring", 4, {"tp": 2, "tp_version": 3, "zero": 3, "loss_chunks": 2}, batch=2),
    StepCase("burst", 4, {"dp": 2, "zero": 1, "checkpoint": "full", "microbatches": 2}, batch=4),
    StepCase("ring", 4, {"pp": 2, "microbatches": 2}, batch=2),
    StepCase("ring", 4, {"offload": "all", "checkpoint": "attention", "zero": 1, "dp": 2, "microbatches": 2}, batch=4),
    StepCase("ring", 4, {"ep": 2, "dp": 2, "zero": 2, "routing": "zipf:seed=5"}, batch=2, shape=EXPERTS),
    StepCase("ulysses", 4, {"method": "lora:rank=2,targets=all", "tp": 2}),
    StepCase("ring", 4, {"new_tokens": 2, "pp": 2, "kv_dtype": "int8", "stage_link": "1ms,1Gbit/s"}, batch=2),
]


def prepare(case: StepCase) -> tuple[Program, dict[str, torch.Tensor]]:
    """A training step; or decoding, where the options are of that."""
    if "new_tokens" in case.options:
        return case.decoding(), case.context()
    return case.program(), case.inputs()


def run_cases(world: World, cases: list[StepCase]) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    found = []
    for case in cases:
        program, inputs = prepare(case)
        load = cut_input(inputs, world.rank)
        executor = RankExecutor(world, program, DenseKernel(), load, dtype=torch.float64, poison=True)
        executor.call()
        found.append({name: tensor.numpy().copy() for name, tensor in executor.outputs.items()})
    return found


@cache
def runs() -> list[list[dict[str, Any]]]:
    """Outputs by rank and case."""
    return run_ranks(RANKS, run_cases, CASES)


@pytest.mark.parametrize("number", range(len(CASES)), ids=[str(case) for case in CASES])
def test_as_in_one_process(number: int) -> None:
    looped = execute(*prepare(CASES[number])).shards
    for rank in range(RANKS):
        outputs = runs()[rank][number]
        assert set(outputs) == set(looped)
        for name, got in outputs.items():
            want = looped[name][rank]
            assert torch.from_numpy(got).shape == want.shape
            if want.numel():
                assert (torch.from_numpy(got) - want).abs().max() < 1e-12, name

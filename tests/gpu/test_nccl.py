"""Real processes over NCCL, one GPU each, as many as there are: the same cases as over gloo, in bf16."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.validators.executors.cases import Case, dense_results, scaled_inputs
from validators.executors.distributed import RankExecutor, cut_input
from validators.executors.processes import run_ranks
from validators.executors.shards import assemble
from validators.executors.world import World
from validators.kernels import build_attention_kernel
from validators.kernels.fused import merge_into
from validators.reference import relative_error
from validators.validation.loopback_check import TOLERANCE

SPECS = ("ring", "ring:partition=contiguous", "burst", "ulysses", "allgather", "lightseq", "magi", "tp", "usp")


def run_case(world: World, case: Case) -> dict[str, Any]:
    program, inputs = case.build(), scaled_inputs(case.setup)
    kernel = build_attention_kernel("flash2")
    executor = RankExecutor(world, program, kernel, cut_input(inputs, world.rank), merge=merge_into)
    executor.call()
    executor.call(recorded=True)
    outputs = {name: tensor.float().cpu().numpy() for name, tensor in executor.outputs.items()}
    return {"outputs": outputs, "spans": executor.spans_ns}


@pytest.mark.parametrize("spec", SPECS)
def test_gpus_compute_the_reference(spec: str) -> None:
    ranks = min(torch.cuda.device_count(), 8)
    if ranks == 1 and spec == "lightseq":
        pytest.skip("needs two ranks")
    case = Case(spec, ranks, seq_len=1536)
    runs = run_ranks(ranks, run_case, case, backend="nccl")
    want = dense_results(case.setup, scaled_inputs(case.setup))
    for name, buffer in case.build().outputs.items():
        got = assemble(buffer, [torch.from_numpy(run["outputs"][name]) for run in runs], case.setup)
        assert relative_error(got, want[name]) < 2 * TOLERANCE[name], name

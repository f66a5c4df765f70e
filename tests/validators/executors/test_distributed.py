"""Real processes over gloo compute what dense attention says, whatever the schedule and however many they are."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from simulator.schedules import SCHEDULES
from tests.validators.executors.cases import Case, dense_results, scaled_inputs, worst_error
from validators.executors.distributed import RankExecutor, cut_input
from validators.executors.loopback import DenseKernel, execute
from validators.executors.processes import run_ranks
from validators.executors.shards import Globals, assemble
from validators.executors.world import World

TOLERANCE = 1e-12
DOCUMENTS = "document:lengths=10+17+21,causal=true"
WINDOW = "sliding-window:window=7,causal=true"

SPECS = {
    "apb": "apb:anchor=4,passing=3",
    "star": "star:anchor=4",
    "minference": "minference:vertical=5,slash=6,sink=1,local=2",
}
"""Options that fit the small workload; other schedules run with their defaults."""

CASES = [
    Case("ring", 2, batch=2),
    Case("ring:partition=contiguous,messages=separate", 3),
    Case("burst:partition=striped", 3, kv_heads=2),
    Case("ulysses", 3, heads=6, kv_heads=3, batch=2),
    Case("magi:chunk=2,stages=3,grad=fp32", 2, batch=2),
    *[Case(SPECS.get(name, name), 4, kv_heads=4) for name in SCHEDULES if name not in ("flash", "minference")],
    Case(SPECS["minference"], 4, kv_heads=4, batch=2),
    Case("flash", 1),
    Case("apb:anchor=4,passing=3", 4, batch=2),
    Case("ring:partition=contiguous", 4, DOCUMENTS),
    Case("burst", 4, WINDOW),
    Case("burst:ring=double", 4, ranks_per_node=2),
    Case("ulysses", 4, DOCUMENTS, kv_heads=2),
    Case("allgather:head-group=2,partition=area-balanced,grad=fp32", 4, DOCUMENTS),
    Case("usp:ulysses=2,placement=context-first,partition=document-zigzag", 4, DOCUMENTS),
    Case("loongtrain:head=2,window=2,placement=interleaved,messages=fused", 4),
    Case("tp:version=3", 4, batch=2),
    Case("hybrid-cp:tokens=12", 4, DOCUMENTS),
    Case("lightseq", 3),
    Case("magi:chunk=2,transport=native", 4, kv_heads=4, ranks_per_node=2),
]


def run_case(world: World, case: Case) -> dict[str, Any]:
    """Two calls, so that what the first leaves behind would show; the second is recorded."""
    torch.set_num_threads(1)
    program, inputs = case.build(), scaled_inputs(case.setup)
    executor = RankExecutor(
        world, program, DenseKernel(), cut_input(inputs, world.rank), dtype=torch.float64, poison=True
    )
    executor.call()
    elapsed_ns = executor.call(recorded=True)
    taking_part = [
        operation.id for operation in program.operations if operation.ranks is None or operation.ranks[world.rank]
    ]
    return {
        "outputs": {name: tensor.numpy().copy() for name, tensor in executor.outputs.items()},
        "spans": executor.spans_ns,
        "operations": taking_part,
        "elapsed_ns": elapsed_ns,
    }


def run_cases(world: World, cases: list[Case]) -> list[dict[str, Any]]:
    return [run_case(world, case) for case in cases]


@cache
def runs_of(n_ranks: int) -> dict[str, list[dict[str, Any]]]:
    """The results of each case with so many ranks, a list over ranks."""
    cases = [case for case in CASES if case.ranks == n_ranks]
    by_rank = run_ranks(n_ranks, run_cases, cases)
    return {str(case): [rank[i] for rank in by_rank] for i, case in enumerate(cases)}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_processes_compute_the_reference(case: Case) -> None:
    ranks = runs_of(case.ranks)[str(case)]
    program, inputs = case.build(), scaled_inputs(case.setup)
    if not SCHEDULES[case.spec.split(":")[0]].exact:
        looped = execute(program, inputs)
        for rank, run in enumerate(ranks):
            shards = {name: tensor[rank] for name, tensor in looped.shards.items()}
            assert worst_error(_tensors(run["outputs"]), shards) < TOLERANCE
        return
    outputs = {
        name: assemble(buffer, [torch.from_numpy(run["outputs"][name]) for run in ranks], program.setup)
        for name, buffer in program.outputs.items()
    }
    assert set(outputs) == {"o", "lse", "dq", "dk", "dv"}
    assert worst_error(outputs, dense_results(case.setup, inputs)) < TOLERANCE


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_operation_ran_once_in_the_order_of_its_lane(case: Case) -> None:
    program = case.build()
    for run in runs_of(case.ranks)[str(case)]:
        assert sorted(run["spans"]) == run["operations"]
        last_end: dict[str, int] = {}
        for operation in program.operations:
            if operation.id in run["spans"]:
                start, end = run["spans"][operation.id]
                assert last_end.get(operation.lane, 0) <= start <= end <= run["elapsed_ns"]
                last_end[operation.lane] = end


def _tensors(arrays: dict[str, np.ndarray[Any, Any]]) -> Globals:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}

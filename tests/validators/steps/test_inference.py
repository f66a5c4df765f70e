"""Prefill and decode, executed on all ranks, equal a plain model's forward on the whole sequence."""

from __future__ import annotations

import pytest
import torch

from cost_models.masks import parse_mask
from simulator.program.program import Program
from simulator.steps.inference import record_decode, record_prefill
from tests.validators.executors.cases import mask_matrix
from tests.validators.steps.cases import TIED, UNGATED, StepCase
from validators.executors.loopback import Loopback, execute
from validators.executors.shards import Globals, token_index
from validators.transformer import prefill

TOLERANCE = 1e-12
CASES = [
    StepCase("ring", 1),
    StepCase("ring", 2, batch=2),
    StepCase("ring", 2, shape=UNGATED),
    StepCase("ring", 4, {"tp": 2}, shape=TIED),
    StepCase("burst:partition=contiguous", 4, {"tp": 2, "dp": 2}, batch=4),
    StepCase("ulysses", 4, {"tp": 2, "tp_version": 3, "pp": 2}),
    StepCase("ring", 8, {"pp": 2, "microbatches": 2, "dp": 2}, batch=4),
]


def reference(case: StepCase) -> Globals:
    ids = case.tokens()["ids"][:, 0]
    return prefill(case.shape, case.weights(), ids, mask_matrix(parse_mask(case.mask, case.seq_len), case.seq_len))


def check_logits(case: StepCase, done: Loopback, wanted: torch.Tensor, last_rank_only: bool) -> None:
    grid, checked = case.plan.grid, 0
    own = grid.coordinate("pp") == grid.pp - 1
    if last_rank_only:
        ends = [max(each.stop for each in case.plan.schedule.input_partition(case.plan.setup).ranges(rank))
                for rank in range(grid.cp)]  # fmt: skip
        rank_of_last = {"ring": 0, "burst": grid.cp - 1, "ulysses": grid.cp - 1}[case.plan.schedule.name]
        assert ends[rank_of_last] == case.seq_len
        own &= grid.context == rank_of_last
    words = case.shape.vocab // grid.tp
    for microbatch in range(case.plan.options.microbatches):
        for rank in range(grid.n_ranks):
            if own[rank]:
                first = (
                    grid.coordinate("dp")[rank] * case.plan.options.microbatches + microbatch
                ) * case.plan.micro_batch
                word = grid.coordinate("tp")[rank] * words
                want = wanted[first : first + case.plan.micro_batch, word : word + words]
                got = done.shards[f"logits {microbatch}"][rank][:, 0, 0]
                assert (got - want).abs().max() < TOLERANCE
                checked += 1
    assert checked == case.plan.options.microbatches * own.sum() > 0


@pytest.mark.parametrize("case", CASES, ids=str)
def test_prefill(case: StepCase) -> None:
    program = Program(case.plan.world)
    record_prefill(case.plan, program)
    wanted = reference(case)
    done = execute(program, {**case.weights(), "ids": case.tokens()["ids"].double()})
    check_logits(case, done, wanted["logits"], last_rank_only=True)
    grid, heads = case.plan.grid, case.shape.kv_heads // case.plan.grid.tp
    layers = case.shape.layers // grid.pp
    for index in range(case.shape.layers):
        for rank in range(grid.n_ranks):
            if grid.coordinate("pp")[rank] != index // layers:
                continue
            own = token_index(
                case.plan.resolved().schedule.input_partition(case.plan.setup).ranges(int(grid.context[rank]))
            )
            first = grid.coordinate("dp")[rank] * case.plan.options.microbatches * case.plan.micro_batch
            head = grid.coordinate("tp")[rank] * heads
            want = wanted[f"keys {index}"][first : first + case.plan.micro_batch, own, head : head + heads]
            assert (done.shards[f"keys 0.{index}"][rank] - want).abs().max() < TOLERANCE


@pytest.mark.parametrize("case", CASES, ids=str)
def test_decode(case: StepCase) -> None:
    """The cache holds all tokens but the last, whose rows are not there yet."""
    program = Program(case.plan.world)
    record_decode(case.plan, program)
    wanted, ids = reference(case), case.tokens()["ids"].double()
    caches = {name: each.clone() for name, each in wanted.items() if name != "logits"}
    for each in caches.values():
        each[:, -1] = torch.nan
    done = execute(program, {**case.weights(), **caches, "last ids": ids[:, :, -1:]})
    check_logits(case, done, wanted["logits"], last_rank_only=False)


def test_approximate_prefill_ends_with_the_query() -> None:
    """The query's tokens attend to the keys of both hosts, and both end with the same logits."""
    case = StepCase("apb:anchor=2,passing=6", 2)
    program = Program(case.plan.world)
    record_prefill(case.plan, program)
    ids = case.tokens()["ids"].double()
    done = execute(program, {**case.weights(), "ids": ids, "last ids": ids[:, :, -8:]})
    assert {"logits 0", "logits 1", "keys 0.0"} <= set(done.shards)
    assert done.shards["keys 0.0"][1].shape[1] == case.seq_len // 2, "anchors are not kept"
    assert (done.shards["logits 1"][0] - done.shards["logits 1"][1]).abs().max() < TOLERANCE

"""Experts in prefill and decode under context parallelism: executed, they equal a plain mixture of experts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from cost_models.masks import parse_mask
from cost_models.models.shape import MoeShape
from simulator.grid import Grid
from simulator.layers.routing import build_routing
from simulator.program.operations import Collective
from simulator.program.program import Program
from simulator.steps.inference import record_prefill
from tests.validators.executors.cases import mask_matrix
from tests.validators.steps.cases import DEEPSEEK, EXPERTS, StepCase
from tests.validators.steps.test_serving import check_caches, check_last_logits
from traces.errors import InputError
from validators.executors.loopback import execute
from validators.executors.shards import Globals, token_index
from validators.transformer import prefill

TOLERANCE = 1e-12
ALL_EXPERTS = replace(EXPERTS, name="all experts", moe=MoeShape(experts=8, top_k=3, shared=1, intermediate=10))
UNSHARED = replace(EXPERTS, name="unshared", moe=MoeShape(experts=4, top_k=2, shared=0, intermediate=10))
OVERLAP = {"overlap_microbatches": True}
SKEWED = "zipf:exponent=1.5,seed=3"


def visited(counts: np.ndarray, tokens: int) -> Tensor:
    """[tokens, experts]: row j, sorted by expert, is token j mod n."""
    expert = torch.repeat_interleave(torch.arange(len(counts)), torch.from_numpy(counts))
    found = torch.zeros(tokens, len(counts), dtype=torch.bool)
    found[torch.arange(len(expert)) % tokens, expert] = True
    return found


def reference(case: StepCase, visits: Tensor, ids: Tensor | None = None) -> Globals:
    ids = case.tokens()["ids"][:, 0] if ids is None else ids
    length = ids.shape[1]
    allowed = mask_matrix(parse_mask(case.mask, case.seq_len), case.seq_len)[:length, :length]
    return prefill(case.shape, case.weights(), ids, allowed, visits[:, :length])


PROMPTS = [
    StepCase("ring", 2, {"ep": 2, "routing": SKEWED}, batch=2, seq_len=24, shape=ALL_EXPERTS),
    StepCase("ulysses", 4, {"ep": 2, "tp": 2, "routing": SKEWED}, shape=EXPERTS),
    StepCase("ring", 4, {"ep": 4, "prefill_chunk": 8, "routing": SKEWED}, seq_len=24, shape=ALL_EXPERTS),
    StepCase("ring", 4, {"ep": 2, "prefill_chunk": 8}, batch=2, seq_len=24, shape=DEEPSEEK),
    StepCase("ring", 2, {"ep": 2, "cached_prefix": 8, "routing": SKEWED}, seq_len=24, shape=EXPERTS),
]


@pytest.mark.parametrize("case", PROMPTS, ids=str)
def test_prefill(case: StepCase) -> None:
    plan, visits = case.plan.resolved(), torch.zeros(case.batch, case.seq_len, case.shape.moe.experts, dtype=torch.bool)
    for chunk in plan.chunks if plan.options.chunked else [None]:
        setup = chunk.setup if chunk else plan.setup
        partition = plan.schedule.input_partition(setup)
        for rank in range(case.ranks):
            ranges = (chunk.shifted(partition) if chunk else partition).ranges(int(plan.grid.context[rank]))
            own, first = token_index(ranges), int(plan.grid.coordinate("dp")[rank]) * plan.micro_batch
            routing = plan.routing(len(own) * plan.micro_batch)
            found = visited(routing.counts[routing.place[rank]], len(own) * plan.micro_batch)
            for row in range(plan.micro_batch):
                visits[first + row, own] = found[row * len(own) : (row + 1) * len(own)]
    wanted = reference(case, visits)
    program, prefix = Program(case.plan.world), case.plan.options.cached_prefix
    record_prefill(case.plan, program)
    caches = {name: each.clone() for name, each in wanted.items() if name != "logits" and prefix}
    for each in caches.values():
        each[:, prefix:] = torch.nan
    done = execute(program, {**case.weights(), **caches, "ids": case.tokens()["ids"].double()})
    check_last_logits(case, done, wanted["logits"])
    check_caches(case, done, wanted)


DECODED = [
    StepCase("ring", 2, {"routing": SKEWED}, batch=3, shape=ALL_EXPERTS),
    StepCase("ring", 2, {"ep": 2, "routing": SKEWED}, batch=3, shape=ALL_EXPERTS),
    StepCase("ring", 4, {"ep": 4}, shape=UNSHARED),
    StepCase("ring", 4, {"ep": 2, "routing": SKEWED, "new_tokens": 3}, batch=3, shape=ALL_EXPERTS),
    StepCase("ring", 4, {"ep": 4, "dp": 2, "routing": SKEWED, "new_tokens": 2}, batch=6, shape=ALL_EXPERTS),
    StepCase("ring", 8, {"ep": 8, "dp": 2, "capacity": 1.0, "routing": SKEWED}, batch=8, shape=ALL_EXPERTS),
    StepCase("ring", 8, {"ep": 4, "dp": 4, "placement": "tp-dp-cp-pp", "routing": SKEWED}, batch=8, shape=ALL_EXPERTS),
    StepCase("ring", 8, {"ep": 8, "dp": 4, "placement": "dp-tp-cp-pp", "routing": SKEWED}, batch=8, shape=ALL_EXPERTS),
    StepCase("ring", 8, {"ep": 2, "tp": 2, "pp": 2, "microbatches": 2, "routing": SKEWED}, batch=4, shape=EXPERTS),
    StepCase("ring", 8, {"ep": 4, "tp": 2, "dp": 2, "kv_block": 3}, batch=4, shape=DEEPSEEK),
    StepCase("ring", 4, {"ep": 4, "dp": 2, "microbatches": 2, "new_tokens": 2, "routing": SKEWED, **OVERLAP}, batch=8,
             shape=ALL_EXPERTS),
    StepCase("ring", 4, {"ep": 2, "tp": 2, "microbatches": 4, "cuda_graphs": True, **OVERLAP}, batch=4, shape=DEEPSEEK),
]  # fmt: skip


@pytest.mark.parametrize("case", DECODED, ids=str)
def test_decoding_is_greedy_generation(case: StepCase) -> None:
    """Greedy tokens of a plain model, whose context visited experts of its own choice."""
    plan, options, shape = case.plan, case.plan.options, case.shape
    context, experts = case.seq_len - options.new_tokens, shape.moe.experts
    visits = torch.zeros(case.batch, case.seq_len, experts, dtype=torch.bool)
    visits[:, :context, : shape.moe.top_k] = True
    routing = plan.routing(plan.sequences, replicated=True)
    for rank, microbatch in np.ndindex(case.ranks, options.microbatches):
        first = (int(plan.grid.coordinate("dp")[rank]) * options.microbatches + microbatch) * plan.sequences
        found = visited(routing.counts[routing.place[rank]], plan.sequences)
        visits[first : first + plan.sequences, context:] = found[:, None]
    ids, caches, logits = case.tokens()["ids"][:, 0, : context + 1], {}, torch.empty(0)
    last = ids[:, None, -1:].double()
    for _ in range(options.new_tokens):
        found = reference(case, visits, ids)
        logits = found.pop("logits")
        caches = caches or {name: rows[:, :context] for name, rows in found.items()}
        ids = torch.cat([ids, logits.argmax(dim=-1, keepdim=True)], dim=1)
    inputs = {}
    for name, rows in caches.items():
        inputs[name] = torch.full((rows.shape[0], case.seq_len, *rows.shape[2:]), torch.nan, dtype=torch.float64)
        inputs[name][:, :context] = rows
    done = execute(case.decoding(), {**case.weights(), **inputs, "last ids": last})
    words = shape.vocab // plan.grid.tp
    for rank, microbatch in np.ndindex(case.ranks, options.microbatches):
        if plan.grid.coordinate("pp")[rank] == plan.grid.pp - 1:
            first = (int(plan.grid.coordinate("dp")[rank]) * options.microbatches + microbatch) * plan.sequences
            word = int(plan.grid.coordinate("tp")[rank]) * words
            want = logits[first : first + plan.sequences, word : word + words]
            assert (done.shards[f"logits {microbatch}"][rank][:, 0, 0] - want).abs().max() < TOLERANCE


@pytest.mark.parametrize(
    ("grid", "over", "copies"),
    [
        (Grid(cp=4), 1, 4), (Grid(cp=4), 2, 2), (Grid(cp=4), 4, 1), (Grid(cp=4, dp=2), 8, 1),
        (Grid(cp=2, dp=4, order="tp-dp-cp-pp"), 4, 2), (Grid(cp=2, dp=4, order="tp-dp-cp-pp"), 8, 1),
    ],
)  # fmt: skip
def test_each_row_of_new_tokens_is_computed_once_by_every_set_of_experts(grid: Grid, over: int, copies: int) -> None:
    """Not once by every rank that has the token: rows of a replica, times the groups of owners among its ranks."""
    moe = MoeShape(experts=8, top_k=3, shared=0, intermediate=8)
    routing = build_routing(moe, grid, 5, over, SKEWED, replicated=True)
    assert routing.computed.sum() == routing.rows.sum() == grid.dp * 5 * 3 * copies
    assert (routing.splits.sum(axis=0) == routing.computed).all()


def test_where_experts_lie_in_the_context_group_nothing_but_a_sum_travels() -> None:
    program = StepCase("ring", 4, {"ep": 4}, batch=2, shape=UNSHARED).decoding()
    kinds = [operation.kind for operation in program.operations if operation.lane == "comm:ep"]
    assert kinds == ["all_reduce"] * UNSHARED.layers
    work = next(each.work for each in program.operations if each.lane == "comm:ep")
    assert isinstance(work, Collective) and work.bytes == 2 * UNSHARED.hidden * 2


def issued(case: StepCase) -> list[str]:
    """Kinds of operations of one layer with experts, in order, by microbatch where they are attention or messages."""
    kinds = {"experts": "experts", "all_to_all_v": "exchange", "attention_forward": "attend", "all_reduce": "sum"}
    return [kinds[each.kind] for each in case.decoding().operations if each.kind in kinds]


def test_messages_of_one_microbatch_are_beside_kernels_of_the_other() -> None:
    """Dispatch of one, attention of the other; experts of one, dispatch of the other; and so on."""
    one = replace(UNSHARED, layers=1)
    case = StepCase("ring", 2, {"ep": 2, "dp": 2, "microbatches": 2, **OVERLAP}, batch=4, shape=one)
    products = ["experts"] * 3
    in_turn = ["attend", "exchange", "attend", "exchange", *products, "exchange", *products, "exchange"]
    after = ["attend", "exchange", *products, "exchange"] * 2
    assert issued(case) == in_turn
    assert issued(replace(case, options={**case.options, "overlap_microbatches": False})) == after


def test_sums_over_tensor_parallel_ranks_are_beside_the_other_too() -> None:
    dense = replace(EXPERTS, moe=None, layers=1)
    case = StepCase("flash", 2, {"tp": 2, "microbatches": 2, **OVERLAP}, batch=2, shape=dense)
    embedded, feed_forward = ["sum", "sum"], ["sum", "sum"]
    assert issued(case) == [*embedded, "attend", "sum", "attend", "sum", *feed_forward]


def test_groups_that_cut_a_context_group_unevenly_are_refused() -> None:
    moe = MoeShape(experts=12, top_k=2, shared=0, intermediate=8)
    with pytest.raises(InputError, match="whole context parallel groups"):
        build_routing(moe, Grid(cp=4, dp=3), 6, 6, replicated=True)

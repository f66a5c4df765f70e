"""Schedules that leave pairs out compute dense attention under their own mask: Star, MInference, and decoding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cost_models.masks import TokenRange
from simulator.program.partition import Layout, Partition
from simulator.program.program import Program
from simulator.program.recorder import Recorder
from simulator.schedules.star import Star, decode
from tests.validators.executors.cases import Case, dense_results, mask_matrix, scaled_inputs, worst_error
from validators.dense import dense_forward
from validators.executors.loopback import execute

TOLERANCE = 1e-12


STAR = [
    Case(f"star:anchor={anchor}", ranks, batch=batch, kv_heads=kv_heads)
    for anchor, ranks, batch, kv_heads in ((3, 2, 1, 8), (12, 4, 2, 2), (5, 3, 1, 4), (6, 8, 1, 8), (9, 1, 1, 8))
]


@pytest.mark.parametrize("case", STAR, ids=str)
def test_star_equals_dense_attention_of_anchor_and_block(case: Case) -> None:
    inputs, setup = scaled_inputs(case.setup), case.setup
    done, block = execute(case.build(), inputs), case.seq_len // case.ranks
    anchor = Star(int(case.spec.split("=")[1])).anchor or 0
    for rank in range(case.ranks):
        rows = [*range(anchor if rank else 0), *range(rank * block, (rank + 1) * block)]
        assert len(set(rows)) == len(rows)
        allowed = torch.ones(len(rows), len(rows), dtype=torch.bool).tril()
        o, lse = dense_forward(*[inputs[name][:, rows] for name in "qkv"], allowed)
        got = {"o": done.shards["o"][rank], "lse": done.shards["lse"][rank]}
        assert worst_error(got, {"o": o, "lse": lse}) < TOLERANCE
    assert setup.n_ranks == case.ranks


MINFERENCE = "minference:vertical=5,slash=6,sink=1,local=2"


@pytest.mark.parametrize(
    "case",
    [Case(MINFERENCE, p, kv_heads=k, batch=b) for p, k, b in ((1, 8, 1), (2, 4, 2), (3, 3, 1), (4, 2, 1), (8, 8, 2))],
    ids=str,
)
def test_minference_equals_dense_attention_under_the_chosen_mask(case: Case) -> None:
    if case.kv_heads == 3:
        case = Case(case.spec, case.ranks, heads=6, kv_heads=3)
    inputs = scaled_inputs(case.setup)
    done = execute(case.build(), inputs)
    chosen = torch.cat([done.selected[rank] for rank in range(case.ranks)], dim=1)
    assert chosen.shape == (case.batch, case.heads, 11)
    columns, diagonals = chosen[..., :5], chosen[..., 5:]
    tokens = torch.arange(case.seq_len)
    distance = tokens[:, None] - tokens
    in_column = (columns[..., None, :, None] == tokens).any(dim=-2)
    on_diagonal = (diagonals[..., None, None, :] == distance[..., None]).any(dim=-1)
    allowed = (in_column | on_diagonal) & (distance >= 0)
    o, lse = dense_forward(inputs["q"], inputs["k"], inputs["v"], allowed)
    assert worst_error(done.results, {"o": o, "lse": lse}) < TOLERANCE
    assert bool((columns[..., 0] == 0).all()), "the sink is kept"
    assert bool((diagonals[..., :2] == torch.tensor([0, 1])).all()), "the nearest diagonals are kept"


def test_minference_keeps_the_columns_with_the_largest_weights() -> None:
    """One head, no sink: the choice is that of the attention weights of the last queries."""
    case = Case("minference:vertical=4,slash=3,sink=0,local=1", 1, heads=1, kv_heads=1)
    inputs = scaled_inputs(case.setup)
    chosen = execute(case.build(), inputs).selected[0]
    score = torch.einsum("qd,kd->qk", inputs["q"][0, :, 0], inputs["k"][0, :, 0]) / 8**0.5
    weights = torch.softmax(score.masked_fill(~torch.ones(48, 48, dtype=torch.bool).tril(), -torch.inf), dim=-1)
    best = weights.sum(dim=0).topk(4).indices.sort().values
    assert chosen[0, 0, :4].tolist() == best.tolist()
    sums = torch.stack([weights.diagonal(-distance).sum() for distance in range(48)])
    sums[0] = torch.inf
    assert chosen[0, 0, 4:].tolist() == sums.topk(3).indices.sort().values.tolist()


def test_minference_with_everything_kept_is_dense_attention() -> None:
    case = Case("minference:vertical=48,slash=48", 2)
    inputs = scaled_inputs(case.setup)
    dense = dense_results(case.setup, inputs)
    assert worst_error(execute(case.build(), inputs).results, {name: dense[name] for name in ("o", "lse")}) < TOLERANCE


@pytest.mark.parametrize(("ranks", "tokens", "batch"), [(1, 3, 1), (2, 1, 2), (4, 5, 1), (3, 4, 2)])
def test_phase_2_equals_dense_attention_of_the_last_queries(ranks: int, tokens: int, batch: int) -> None:
    """Every host has the last queries; together they see all keys."""
    case = Case("star", ranks, batch=batch, kv_heads=4)
    setup, inputs = case.setup, scaled_inputs(case.setup)
    w, program = setup.workload, Program(case.setup)
    r = Recorder(setup, program)
    last = Layout(Partition.of("last", [[TokenRange(48 - tokens, 48)]]), np.zeros(ranks, dtype=np.int64))
    home = Layout.home(
        Partition.of("blocks", [[TokenRange(p * 48 // ranks, (p + 1) * 48 // ranks)] for p in range(ranks)])
    )
    q = r.tensor("q", last, w.heads, w.head_dim, w.dtype, is_input=True)
    k = r.tensor("k", home, w.kv_heads, w.head_dim, w.dtype, is_input=True)
    v = r.tensor("v", home, w.kv_heads, w.v_head_dim, w.dtype, is_input=True)
    o, lse = decode(r, q, k, v)
    r.close({"o": o, "lse": lse})
    done = execute(program, inputs)
    allowed = mask_matrix(w.mask, 48)[-tokens:]
    want_o, want_lse = dense_forward(inputs["q"][:, -tokens:], inputs["k"], inputs["v"], allowed)
    for rank in range(ranks):
        got = {"o": done.shards["o"][rank], "lse": done.shards["lse"][rank]}
        assert worst_error(got, {"o": want_o, "lse": want_lse}) < TOLERANCE

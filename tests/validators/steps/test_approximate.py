"""Approximate prefill of a whole model does what its paper says: a plain model under the same mask says what that is.

Star and APB are masks on the whole sequence, as anchors attend to anchors alone and so are alike on all hosts: a query
sees the keys of its own host's block up to itself, the anchor's, and with APB those that hosts before pass on. Which
these are, and MInference's columns and diagonals, is found anew here from the papers' words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cost_models.models.shape import MoeShape
from simulator.program.operations import Buffer
from simulator.program.program import Program
from simulator.schedules.apb import SCORE_WIDTH
from simulator.steps.inference import record_prefill
from tests.validators.steps.cases import SHAPE, StepCase
from validators.executors.loopback import execute
from validators.executors.shards import Globals, draw_weight
from validators.transformer import attend, mixture, rms_norm, rotate

TOLERANCE = 1e-11
S = 48
VISITED = replace(SHAPE, name="all visited", moe=MoeShape(experts=4, top_k=4, shared=1, intermediate=10))
"""Every token visits all experts, an anchor's copies too; ranks have unequally many tokens."""
Choose = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""[B, H, S, S] from q, k, v before rotation and q, k after."""


def prefill(case: StepCase, choose: Choose) -> Globals:
    """A plain model, each layer of which attends under a mask of its own choice."""
    w, shape, found = case.weights(), case.shape, {}
    x = w["embed_tokens"][case.tokens()["ids"][:, 0]]
    for index in range(shape.layers):
        at = f"layers.{index}."
        n = rms_norm(x, w[at + "input_norm"])
        q, k, v = heads_of(case, at, n)
        turned = rotate(q, shape.head_dim), rotate(k, shape.head_dim)
        found |= {f"keys {index}": turned[1], f"values {index}": v}
        x = sublayers(case, at, x, attend(*turned, v, choose(q, k, v, *turned)))
    return {**found, "logits": logits(case, x)}


def query_again(case: StepCase, rows: Globals, tokens: int) -> Tensor:
    """Logits after the last tokens, which attend exactly to the rows of all before, and to new ones of theirs."""
    w, shape = case.weights(), case.shape
    x = w["embed_tokens"][case.tokens()["ids"][:, 0]]
    for index in range(shape.layers):
        at = f"layers.{index}."
        q, k, v = heads_of(case, at, rms_norm(x, w[at + "input_norm"]))
        k = torch.cat([rows[f"keys {index}"][:, :-tokens], rotate(k, shape.head_dim)[:, -tokens:]], dim=1)
        v = torch.cat([rows[f"values {index}"][:, :-tokens], v[:, -tokens:]], dim=1)
        # Rows before the query's are not looked at any more: what they hold is not used.
        x = sublayers(case, at, x, attend(rotate(q, shape.head_dim), k, v, torch.ones(S, S, dtype=torch.bool).tril()))
    return logits(case, x)


def heads_of(case: StepCase, at: str, n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    w, shape = case.weights(), case.shape
    counts = {"q": shape.heads, "k": shape.kv_heads, "v": shape.kv_heads}
    q, k, v = [(n @ w[f"{at}{name}_proj"].T).unflatten(2, (count, -1)) for name, count in counts.items()]
    return q, k, v


def sublayers(case: StepCase, at: str, x: Tensor, o: Tensor) -> Tensor:
    w = case.weights()
    x = x + o.flatten(2) @ w[at + "o_proj"].T
    n = rms_norm(x, w[at + "post_norm"])
    if case.shape.moe:
        return x + mixture(case.shape, w, at, n, torch.ones(*n.shape[:2], case.shape.moe.experts, dtype=torch.bool))
    return x + (torch.nn.functional.silu(n @ w[at + "gate_proj"].T) * (n @ w[at + "up_proj"].T)) @ w[at + "down_proj"].T


def logits(case: StepCase, x: Tensor) -> Tensor:
    w = case.weights()
    return rms_norm(x[:, -1], w["norm"]) @ w["lm_head"].T


def own_block(hosts: int, anchor: int) -> Tensor:
    """Causal, within a host's block and to the anchor."""
    token = torch.arange(S)
    host = token // (S // hosts)
    seen = (host[:, None] == host) | (token < anchor)
    return seen & (token[:, None] >= token)


def star(hosts: int, anchor: int) -> Choose:
    return lambda *_: own_block(hosts, anchor)


def apb(case: StepCase, anchor: int, passing: int) -> Choose:
    """Every host passes on the keys that its retaining head scores best, before positions are in them (Algorithm 2)."""
    shape, hosts = case.shape, case.ranks
    wide = shape.heads * shape.head_dim + 2 * shape.kv_heads * shape.head_dim
    first, second = [
        draw_weight(Buffer(0, name, 1, rows, 1, columns, "fp64", 0), torch.float64)
        for name, rows, columns in (("retain_1", SCORE_WIDTH, wide), ("retain_2", shape.kv_heads, SCORE_WIDTH))
    ]

    def choose(q: Tensor, k: Tensor, v: Tensor, *_: Tensor) -> Tensor:
        batch, block = q.shape[0], S // hosts
        allowed = own_block(hosts, anchor).expand(batch, shape.kv_heads, S, S).clone()
        rows = torch.cat([each.flatten(2) for each in (q, k, v)], dim=-1)
        score = (torch.nn.functional.silu(rows @ first.T) @ second.T).transpose(1, 2)
        for host in range(hosts - 1):
            own = torch.arange(host * block, (host + 1) * block)
            before = torch.arange(anchor) if host else torch.arange(0)
            pooled = neighbours(score[..., torch.cat([before, own])])[..., anchor:]
            kept = own[anchor if host == 0 else 0 :][pooled.topk(passing, dim=-1).indices]
            seen = torch.zeros(batch, shape.kv_heads, S, dtype=torch.bool).scatter_(2, kept, True)
            allowed[:, :, (host + 1) * block :] |= seen[:, :, None]
        return allowed.repeat_interleave(shape.heads // shape.kv_heads, dim=1)

    return choose


def neighbours(score: Tensor) -> Tensor:
    """Largest of each and the two on either side."""
    padded = torch.nn.functional.pad(score, (2, 2), value=-torch.inf)
    return padded.unfold(-1, 5, 1).amax(dim=-1)


def vertical_slash(vertical: int, slash: int, sink: int, local: int) -> Choose:
    """The columns and diagonals with the largest sums of the last queries' weights (Algorithm 1 of MInference)."""

    def choose(_q: Tensor, _k: Tensor, _v: Tensor, q: Tensor, k: Tensor) -> Tensor:
        batch, _, heads, dim = q.shape
        causal = torch.ones(S, S, dtype=torch.bool).tril()
        keys = k.repeat_interleave(heads // k.shape[2], dim=2)
        score = torch.einsum("bqhd,bkhd->bhqk", q, keys) / dim**0.5
        weights = score.masked_fill(~causal, -torch.inf).softmax(dim=-1)  # S < 64: all queries are the last ones
        allowed = torch.zeros(batch, heads, S, S, dtype=torch.bool)
        distance = torch.arange(S)[:, None] - torch.arange(S)
        for b in range(batch):
            for h in range(heads):
                columns = weights[b, h].sum(dim=0)
                diagonals = torch.stack([weights[b, h].diagonal(-d).sum() for d in range(S)])
                columns[:sink], diagonals[:local] = torch.inf, torch.inf
                kept = torch.isin(torch.arange(S), columns.topk(vertical).indices)
                near = torch.isin(distance, diagonals.topk(slash).indices)
                allowed[b, h] = (kept | near) & causal
        return allowed

    return choose


def run(case: StepCase, query: int) -> tuple[list[Tensor], Globals]:
    """Logits of all ranks at the end, and the caches of the whole sequence."""
    program = Program(case.plan.world)
    record_prefill(case.plan, program)
    ids = case.tokens()["ids"].double()
    done = execute(program, {**case.weights(), "ids": ids, "last ids": ids[:, :, S - query :]})
    last = max(name for name in done.shards if name.startswith("logits"))
    rows = {name.replace(" 0.", " "): torch.cat(done.shards[name], dim=1) for name in done.shards if " 0." in name}
    return [each[:, 0, 0] for each in done.shards[last]], rows


CASES = [
    (StepCase("star", 4, seq_len=S), star(4, 12)),
    (StepCase("star:anchor=5", 2, seq_len=S, batch=2), star(2, 5)),
    (StepCase("apb:anchor=3,passing=4", 4, seq_len=S), apb(StepCase("apb", 4), 3, 4)),
    (StepCase("apb:anchor=6,passing=2", 2, seq_len=S, batch=2), apb(StepCase("apb", 2), 6, 2)),
    (StepCase("star:anchor=5", 4, {"ep": 4}, seq_len=S, shape=VISITED), star(4, 5)),
    (StepCase("apb:anchor=6,passing=2", 2, {"ep": 2}, seq_len=S, batch=2, shape=VISITED),
     apb(StepCase("apb", 2), 6, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("case", "choose"), CASES, ids=[str(case) for case, _ in CASES])
def test_blocks_then_the_query(case: StepCase, choose: Choose) -> None:
    """Phase 1 leaves the papers' keys on the hosts; phase 2 looks at all of them, and all hosts agree."""
    query = S // case.ranks
    wanted = prefill(case, choose)
    got, rows = run(case, query)
    for name, each in rows.items():
        assert (each[:, : S - query] - wanted[name][:, : S - query]).abs().max() < TOLERANCE, name
    again = query_again(case, wanted, query)
    assert all((each - again).abs().max() < TOLERANCE for each in got)
    exact = prefill(case, lambda *_: torch.ones(S, S, dtype=torch.bool).tril())
    assert case.ranks == 2 or (again - exact["logits"]).abs().max() > 1e-3, "it is an approximation"


@pytest.mark.parametrize("ranks", [1, 2])
def test_minference_is_its_own_mask_and_asks_nothing_again(ranks: int) -> None:
    case = StepCase("minference:vertical=6,slash=5,sink=2,local=2", ranks, seq_len=S)
    wanted = prefill(case, vertical_slash(6, 5, 2, 2))
    got, rows = run(case, 1)
    assert len(rows) == 4 and (got[-1] - wanted["logits"]).abs().max() < TOLERANCE
    for name, each in rows.items():
        assert (each - wanted[name]).abs().max() < TOLERANCE, name

"""Every schedule computes dense attention to float64 rounding: output, LSE and gradients."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from cost_models.masks import apb_mask
from simulator.program.operations import Attention
from simulator.program.program import Program
from simulator.schedules.apb import Apb
from tests.validators.executors.cases import Case, dense_results, mask_matrix, scaled_inputs, worst_error
from validators.dense import dense_forward
from validators.executors.loopback import Loopback, execute

TOLERANCE = 1e-12
MASKS = (
    "full",
    "causal",
    "sliding-window:window=7",
    "sliding-window:window=7,causal=true",
    "document:lengths=10+17+21",
    "document:lengths=10+17+21,causal=true",
)


def legal(case: Case) -> bool:
    chunks = 2 * case.ranks if "zigzag" in case.spec else case.ranks
    if "ulysses" in case.spec and (
        case.heads % case.ranks or (case.kv_heads % case.ranks and case.ranks % case.kv_heads)
    ):
        return False
    return case.seq_len % chunks == 0


CASES = [
    case
    for spec, mask, ranks, kv_heads in product(
        [f"{name}:partition={part}" for name in ("ring", "burst") for part in ("contiguous", "zigzag", "striped")]
        + ["ulysses"],
        MASKS,
        (1, 2, 3, 4, 8),
        (8, 2),
    )
    if legal(case := Case(spec, ranks, mask, heads=8, kv_heads=kv_heads))
] + [
    Case("ring", 4, batch=2, kv_heads=4),
    Case("ring:grad=bf16", 4),
    Case("burst:grad=fp32", 4, batch=2),
    Case("ulysses", 4, batch=3, kv_heads=2),
    Case("ulysses", 2, batch=2),
    Case("ulysses", 3, heads=6, kv_heads=3),
    Case("burst:ring=double", 8, ranks_per_node=4),
    Case("burst:ring=double,partition=striped", 8, ranks_per_node=2, kv_heads=2),
    Case("burst:ring=double", 8, ranks_per_node=1),
    Case("burst:ring=double", 8, ranks_per_node=8),
    Case("burst:ring=double", 6, "document:lengths=10+17+21,causal=true", ranks_per_node=3, kv_heads=4),
    Case("burst:ring=double,partition=contiguous", 6, "full", ranks_per_node=2),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_dense_attention(case: Case) -> None:
    program, inputs = case.build(), scaled_inputs(case.setup)
    done = execute(program, inputs)
    assert set(done.results) == {"o", "lse", "dq", "dk", "dv"}
    assert worst_error(done.results, dense_results(case.setup, inputs)) < TOLERANCE


def drop_merges(program: Program) -> Program:
    """A wrong Program: partial results overwrite each other's weights."""
    kept = [event for event in program.events if getattr(event[1], "kind", None) != "merge"]
    return Program(program.setup, kept, program.outputs)


def test_a_missing_merge_is_seen() -> None:
    case = Case("ring", 4)
    inputs = scaled_inputs(case.setup)
    wrong = execute(drop_merges(case.build()), inputs).results
    assert worst_error({"o": wrong["o"]}, dense_results(case.setup, inputs)) > 0.1


def _chosen(held: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows [B, l_p, K, D] of a host's keys [B, n, K, D] that it chose, ``index`` [B, K, l_p]."""
    batch, heads, _ = index.shape
    return torch.stack([torch.stack([held[b, index[b, h], h] for h in range(heads)], dim=1) for b in range(batch)])


def apb_reference(case: Case, done: Loopback, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Dense attention of one host, under APB's mask, over the keys that the hosts chose."""
    inputs, setup = scaled_inputs(case.setup), case.setup
    schedule = Apb(anchor=4, passing=3)
    block, anchor = setup.workload.seq_len // setup.n_ranks, 4
    rows = [list(range(block))] + [
        [*range(anchor), *range(host * block, (host + 1) * block)] for host in range(1, setup.n_ranks)
    ]
    passed = [(host, done.selected[host]) for host in range(rank)]
    keys, values = [
        torch.cat(
            [_chosen(inputs[name][:, rows[host]], index) for host, index in passed] + [inputs[name][:, rows[rank]]], 1
        )
        for name in ("k", "v")
    ]
    own_anchor = anchor if rank else 0
    mask = apb_mask(rank * 3, own_anchor, block)
    q, k = torch.arange(own_anchor + block).numpy(), torch.arange(rank * 3 + own_anchor + block).numpy()
    allowed = torch.from_numpy(mask.allowed(q[:, None], k[None, :]))
    assert schedule.input_partition(setup).tokens[rank] == len(rows[rank])
    return dense_forward(inputs["q"][:, rows[rank]], keys, values, allowed)


@pytest.mark.parametrize(
    "case",
    [
        Case("apb:anchor=4,passing=3", p, batch=b, kv_heads=k)
        for p, b, k in ((1, 1, 8), (2, 2, 2), (3, 1, 4), (4, 1, 8))
    ],
    ids=str,
)
def test_apb_equals_dense_attention_under_its_own_mask(case: Case) -> None:
    done = execute(case.build(), scaled_inputs(case.setup))
    for rank in range(case.ranks):
        o, lse = apb_reference(case, done, rank)
        got = {"o": done.shards["o"][rank], "lse": done.shards["lse"][rank]}
        assert worst_error(got, {"o": o, "lse": lse}) < TOLERANCE
    for rank, chosen in done.selected.items():
        assert bool((chosen >= 4).all()), f"host {rank} passes on anchor tokens"
        assert bool((chosen.diff(dim=-1) > 0).all())


def test_apb_with_everything_passed_sees_all_earlier_keys() -> None:
    """Two hosts, all keys of the first but the anchor passed on: the second host's local rows are dense causal."""
    case = Case("apb:anchor=4,passing=20", 2)
    inputs = scaled_inputs(case.setup)
    done, dense = execute(case.build(), inputs), dense_results(case.setup, inputs)
    assert worst_error({"o": done.shards["o"][1][:, 4:]}, {"o": dense["o"][:, 24:]}) < TOLERANCE


def test_pairs_of_the_lowerings_are_the_masks() -> None:
    for spec in ("ring", "ring:partition=striped", "burst", "ulysses"):
        for mask in MASKS:
            case = Case(spec, 4, mask)
            forward = [op.work for op in case.build().operations if op.kind == "attention_forward"]
            pairs = sum(
                work.lowering.of(rank).pairs for work in forward if isinstance(work, Attention) for rank in range(4)
            )
            per_head = mask_matrix(case.setup.workload.mask, case.seq_len).sum().item()
            assert pairs == per_head * (4 if spec == "ulysses" else 1)

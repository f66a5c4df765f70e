"""Bytes that each rank sends, against closed forms: the mechanisms of the Long-Context Attention Benchmark and others.

c = S/P tokens a rank, KVB = 2 B c K D e bytes (K and V of a rank), QB = B c H D e, e = 2 (bf16).
Source: LongCA-bench (arXiv 2510.17896) section 3 and its code; the papers that the schedules name.
"""

from __future__ import annotations

import numpy as np
import pytest

from cost_models.masks import needed_keys, parse_mask
from simulator.engines.memory import Memory
from simulator.program.partitioners import build_partition
from simulator.program.setup import Setup
from simulator.schedules import parse_schedule
from tests.simulator.schedules.test_bytes_sent import B, D, E, S, hops, sent_bytes, setup_of
from tests.simulator.workloads import small_program, small_setup


def sizes(setup: Setup) -> tuple[int, int]:
    """(QB, KVB)."""
    w, tokens = setup.workload, B * setup.workload.seq_len // setup.n_ranks
    return tokens * w.heads * D * E, 2 * tokens * w.kv_heads * D * E


def check(spec: str, setup: Setup, forward: int, backward: int) -> None:
    ranks = setup.n_ranks
    assert sent_bytes(small_program(spec, setup, "forward")) == [forward] * ranks
    assert sent_bytes(small_program(spec, setup, "backward")) == [backward] * ranks
    assert sent_bytes(small_program(spec, setup)) == [forward + backward] * ranks


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(("grad", "g"), [("bf16", 2), ("fp32", 4)])
@pytest.mark.parametrize("group", ["", ",head-group=1"])
def test_allgather(ranks: int, grad: str, g: int, group: str) -> None:
    setup = setup_of(ranks, 8, 4)
    once = (ranks - 1) * sizes(setup)[1]
    check(f"allgather:partition=contiguous,grad={grad}{group}", setup, once, once + once * g // E)


@pytest.mark.parametrize(("ulysses", "ring"), [(1, 8), (2, 4), (4, 2), (8, 1)])
@pytest.mark.parametrize("placement", ["head-first", "context-first"])
def test_usp(ulysses: int, ring: int, placement: str) -> None:
    setup = setup_of(8, 8, 4)
    q, kv = sizes(setup)
    replicated = kv * max(1, ulysses // 4)
    scattered = (ulysses - 1) * (2 * q + replicated) // ulysses
    hop = (ring - 1) * replicated
    gradients = ring * replicated * 4 // E if ring > 1 else 0
    spec = f"usp:ulysses={ulysses},ring={ring},placement={placement},partition=contiguous"
    check(spec, setup, scattered + hop, scattered + hop + gradients)


@pytest.mark.parametrize(
    ("context", "window", "inner", "outer"), [(8, 4, 8, 2), (12, 4, 12, 3), (6, 3, 6, 2), (4, 4, 4, 0)]
)
def test_loongtrain_hops(context: int, window: int, inner: int, outer: int) -> None:
    """(Np/w) (w - 1) inner and Np/w - 1 outer hops of K and of V, w inner and one outer of dK, dV in every window."""
    setup = small_setup(2 * context, seq_len=S * 2, heads=8, kv_heads=4, batch=B)
    program = small_program(f"loongtrain:head=2,context={context},window={window}", setup)
    windows = context // window
    one_way = {("ring", (each,)): windows * (window - 1) for each in "kv"}
    one_way |= {("outer", (each,)): windows - 1 for each in "kv" if windows > 1}
    assert hops(program, "forward") == one_way
    back = {("ring", (each,)): inner for each in ("dk", "dv")} | {("outer", (e,)): outer for e in ("dk", "dv") if outer}
    assert hops(program, "backward") == one_way | back


def test_loongtrain_bytes() -> None:
    """The first window's gradients are fp32, later ones bf16; what crosses to the next window has the later dtype."""
    setup = small_setup(16, seq_len=S * 2, heads=8, kv_heads=4, batch=B)
    q, kv = sizes(setup)
    scattered, hop = (2 * q + kv) // 2, kv
    fp32, bf16 = 2 * hop, hop
    backward = scattered + 7 * hop + 4 * fp32 + 4 * bf16 + fp32 + bf16
    check("loongtrain:head=2,context=8,window=4", setup, scattered + 7 * hop, backward)


@pytest.mark.parametrize("ranks", [2, 3, 4, 5, 8])
def test_lightseq(ranks: int) -> None:
    setup = setup_of(ranks, 8, 4)
    q, kv = sizes(setup)
    rows = B * S // ranks * 8 * 4
    forward, backward = [0] * ranks, [0] * ranks
    for step in range(1, ranks // 2 + 1):
        helps = 2 * step < ranks
        for rank in range(ranks):
            to = (rank + step) % ranks
            if to >= step:  # keys go there, gradients come back
                forward[rank] += kv
                backward[rank] += kv
                backward[to] += 2 * kv
            elif helps:  # queries go there, results come back
                forward[rank] += q
                forward[to] += q + rows
                backward[rank] += 3 * q + rows
                backward[to] += 2 * q
    assert sent_bytes(small_program("lightseq", setup, "forward")) == forward
    assert sent_bytes(small_program("lightseq", setup, "backward")) == backward


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_rsa(ranks: int) -> None:
    """2 B S K D forward and 6 backward, less the (P-1)/P of rings and all-reduces."""
    setup = setup_of(ranks, 8, 4)
    kv = sizes(setup)[1]
    check("rsa", setup, (ranks - 1) * kv, (ranks - 1) * kv + 2 * (ranks - 1) * kv)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_tensor_parallel(ranks: int) -> None:
    """4 t of BurstAttention's appendix B: an all-gather and a reduce-scatter forward, the same backward."""
    setup = setup_of(ranks, 8, 4)
    once = (ranks - 1) * sizes(setup)[0]
    check("tp:version=3", setup, 2 * once, 2 * once)
    check("tp:version=1", setup, 2 * once, 2 * once)


@pytest.mark.parametrize(
    "mask", ["causal", "full", "document:lengths=100+40+100,causal=true", "sliding-window:window=30"]
)
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_magi_sends_the_rows_that_are_needed(mask: str, stages: int) -> None:
    """Counted token by token: each key row goes once to each other rank that has a query which sees it."""
    ranks, setup = 4, small_setup(4, seq_len=S, heads=8, kv_heads=4, batch=B, mask=mask)
    parsed = parse_mask(mask, S)
    partition = build_partition("area-balanced", S, ranks, parsed, chunk=10)
    rows = [0] * ranks
    owner = {
        token: rank for rank in range(ranks) for each in partition.ranges(rank) for token in each.tokens().tolist()
    }
    for rank in range(ranks):
        for each in needed_keys(parsed, partition.ranges(rank), S):
            for token in each.tokens().tolist():
                rows[owner[token]] += owner[token] != rank
    needed = [0] * ranks
    for rank in range(ranks):
        needed[rank] = sum(len(each) for each in needed_keys(parsed, partition.ranges(rank), S))
    row_bytes = B * 2 * 4 * D * E
    forward = sent_bytes(small_program(f"magi:chunk=10,stages={stages}", setup, "forward"))
    assert forward == [count * row_bytes for count in rows]
    received = sum(needed) - sum(
        len({t for each in needed_keys(parsed, partition.ranges(r), S) for t in each.tokens().tolist()}
            & {t for each in partition.ranges(r) for t in each.tokens().tolist()}) for r in range(ranks)
    )  # fmt: skip
    backward = sent_bytes(small_program(f"magi:chunk=10,stages={stages}", setup, "backward"))
    assert sum(forward) == received * row_bytes
    assert sum(backward) == 2 * received * row_bytes


@pytest.mark.parametrize("mask", ["causal", "document:lengths=100+40+100,causal=true"])
def test_magi_with_relays_sends_a_row_to_a_node_once(mask: str) -> None:
    """Counted token by token: over the network once to each other node with a query that sees it, both ways."""
    ranks, node = 6, 3
    setup = small_setup(ranks, seq_len=S, heads=8, kv_heads=4, batch=B, mask=mask, ranks_per_node=node)
    parsed = parse_mask(mask, S)
    partition = build_partition("area-balanced", S, ranks, parsed, chunk=10)
    owner = {
        token: rank for rank in range(ranks) for each in partition.ranges(rank) for token in each.tokens().tolist()
    }
    crossing = {
        (token, rank // node)
        for rank in range(ranks) for each in needed_keys(parsed, partition.ranges(rank), S)
        for token in each.tokens().tolist() if owner[token] // node != rank // node
    }  # fmt: skip
    program = small_program("magi:chunk=10,stages=1,transport=native", setup, "both")
    crossed = 0
    for operation in program.operations:
        if operation.kind == "all_to_all_v":
            source, target = np.nonzero(operation.work.splits)
            rows = operation.work.splits[source, target]
            crossed += int(rows[source // node != target // node].sum()) * operation.work.row_bytes
    assert crossed == 3 * len(crossing) * B * 2 * 4 * D * E


def test_magi_under_a_full_mask_sends_what_all_gather_does() -> None:
    setup = small_setup(4, seq_len=S, heads=8, kv_heads=4, batch=B, mask="full")
    assert sent_bytes(small_program("magi", setup)) == sent_bytes(small_program("allgather", setup))


def test_hybrid_cp_moves_nothing_for_short_documents() -> None:
    short = small_setup(4, seq_len=S, heads=8, kv_heads=4, batch=B, mask="document:lengths=60+60+60+60,causal=true")
    assert sent_bytes(small_program("hybrid-cp", short)) == [0] * 4


def test_hybrid_cp_is_a_ring_for_one_document() -> None:
    setup = small_setup(4, seq_len=S, heads=8, kv_heads=4, batch=B)
    assert sent_bytes(small_program("hybrid-cp", setup)) == sent_bytes(small_program("ring:grad=bf16", setup))


def test_hybrid_cp_rings_of_documents() -> None:
    """120 tokens on two ranks, 60 and 60 on one each: one hop of 60 rows forward, one and two of gradients backward."""
    mask = "document:lengths=60+120+60,causal=true"
    setup = small_setup(4, seq_len=S, heads=8, kv_heads=4, batch=B, mask=mask)
    hop = B * 60 * 2 * 4 * D * E
    forward = sent_bytes(small_program("hybrid-cp", setup, "forward"))
    backward = sent_bytes(small_program("hybrid-cp", setup, "backward"))
    assert (sorted(forward), sorted(backward)) == ([0, 0, hop, hop], [0, 0, 3 * hop, 3 * hop])


def test_star_sends_nothing_and_minference_what_ulysses_does() -> None:
    setup = setup_of(4, 8, 4)
    assert sent_bytes(small_program("star", setup)) == [0] * 4
    ulysses = sent_bytes(small_program("ulysses", setup, "forward"))
    assert sent_bytes(small_program("minference:vertical=9,slash=9", setup)) == ulysses


@pytest.mark.parametrize(
    ("ranks", "ulysses", "ring", "two_d"),
    [(8, 252, 224, 252), (16, 300, 480, 284), (32, 372, 992, 348), (64, 504, 2016, 476)],
)
def test_forward_traffic_at_the_benchmarks_dimensions(ranks: int, ulysses: int, ring: int, two_d: int) -> None:
    """LongCA-bench: 8192 tokens a GPU, 64 heads, 8 KV heads, head dim 128; MiB sent forward by each rank."""
    from cost_models.workload import AttentionWorkload

    mask, tokens = parse_mask("causal"), 8192 * ranks
    setup = Setup(AttentionWorkload(1, tokens, 64, 8, 128, 128, "bf16", mask), ranks, 8)
    sent = {
        spec: sent_bytes(small_program(spec, setup, "forward"))[0] / 2**20 for spec in ("ulysses", "ring", "allgather")
    }
    assert sent == {"ulysses": ulysses, "ring": ring, "allgather": ring}
    for spec in ("usp:ulysses=8", "loongtrain:head=8"):
        assert parse_schedule(spec).resolve(setup)
        assert sent_bytes(small_program(spec, setup, "forward"))[0] / 2**20 == two_d


def forward_peak_bytes(spec: str, setup: Setup) -> int:
    memory = Memory(setup.n_ranks)
    small_program(spec, setup, "forward").replay(memory)
    return int(memory.peak_bytes.max())


@pytest.mark.parametrize("ranks", [4, 8])
def test_keeping_all_buffers_costs_memory_that_grows_with_the_ranks(ranks: int) -> None:
    """LongCA-bench keeps P buffers of K, V and P partial results (8 GiB of them at 64 GPUs): O(S), not O(S / P)."""
    setup = setup_of(ranks, 8, 4)
    q, kv = sizes(setup)
    rows = B * S // ranks * 8 * 4
    spec = "ring:partition=contiguous"
    two, every = forward_peak_bytes(spec, setup), forward_peak_bytes(f"{spec},buffers=all", setup)
    # Two of the P - 1 received buffers and one of the partial results are there anyway.
    assert every - two >= (ranks - 3) * (kv + q + rows)
    assert every - two <= (ranks - 1) * (kv + q + rows)
    assert sent_bytes(small_program(spec, setup)) == sent_bytes(small_program(f"{spec},buffers=all", setup))


def test_separate_messages_are_more_hops_of_the_same_bytes() -> None:
    setup = setup_of(4, 8, 4)
    fused, separate = (small_program(f"ring:messages={how}", setup) for how in ("fused", "separate"))
    assert sent_bytes(fused) == sent_bytes(separate)
    assert hops(fused, "forward") == {("ring", ("k", "v")): 3}
    assert hops(separate, "forward") == {("ring", ("k",)): 3, ("ring", ("v",)): 3}
    assert sum(hops(separate, "backward").values()) == 2 * sum(hops(fused, "backward").values())


def test_a_merging_kernel_needs_no_merges() -> None:
    kinds = [each.kind for each in small_program("ring:merge=kernel", setup_of(4, 8, 4), "forward").operations]
    assert kinds.count("attention_forward") == 4
    assert "merge" not in kinds

"""Bytes that each rank sends and the hops it takes, against the closed forms of the papers.

c = S/P tokens a rank, A_kv = B c K D and A = B c H D elements, R = B c H rows, e = 2 bytes (bf16).
Sources: Liu et al. 2023 section 3 and ring-flash-attention 0.1.8 (Ring); Sun et al. 2024 section 3 and the authors'
code (Burst); Jacobs et al. 2023 section 3 (Ulysses); Huang et al. 2025 section 3 (APB).
"""

from __future__ import annotations

from collections import Counter

import pytest

from simulator.engines.traffic import Traffic
from simulator.program.operations import Exchange
from simulator.program.program import Program
from simulator.program.setup import Setup
from tests.simulator.workloads import small_program, small_setup

E, D, B, S = 2, 16, 2, 240
SHAPES = [(8, 8), (8, 4), (8, 1)]


def sent_bytes(program: Program) -> list[int]:
    traffic = Traffic(program.setup)
    program.replay(traffic)
    sent: list[int] = traffic.sent_bytes.tolist()
    return sent


def setup_of(ranks: int, heads: int, kv_heads: int, ranks_per_node: int | None = None) -> Setup:
    return small_setup(ranks, ranks_per_node=ranks_per_node, heads=heads, kv_heads=kv_heads, batch=B, seq_len=S)


def hops(program: Program, phase: str) -> Counter[tuple[str, tuple[str, ...]]]:
    """Hops by ring and what they carry."""
    return Counter(
        (operation.work.ring.name, tuple(buffer.name.removesuffix("_i") for buffer in operation.reads))
        for operation in program.operations
        if isinstance(operation.work, Exchange) and operation.phase == phase
    )


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(("heads", "kv_heads"), SHAPES)
@pytest.mark.parametrize(("grad", "g"), [("fp32", 4), ("bf16", 2)])
def test_ring(ranks: int, heads: int, kv_heads: int, grad: str, g: int) -> None:
    setup = setup_of(ranks, heads, kv_heads)
    kv = B * S // ranks * kv_heads * D
    forward = (ranks - 1) * 2 * kv * E
    backward = (ranks - 1) * 2 * kv * E + (ranks * 2 * kv * g if ranks > 1 else 0)
    spec = f"ring:partition=contiguous,grad={grad}"
    assert sent_bytes(small_program(spec, setup, "forward")) == [forward] * ranks
    assert sent_bytes(small_program(spec, setup, "backward")) == [backward] * ranks
    assert sent_bytes(small_program(spec, setup)) == [forward + backward] * ranks


def test_ring_hops() -> None:
    program = small_program("ring:partition=contiguous", setup_of(5, 8, 4))
    assert hops(program, "forward") == {("ring", ("k", "v")): 4}
    assert hops(program, "backward") == {("ring", ("k", "v")): 4, ("ring", ("dk", "dv")): 5}


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(("heads", "kv_heads"), SHAPES)
@pytest.mark.parametrize(("grad", "g"), [("fp32", 4), ("bf16", 2)])
def test_burst_flat(ranks: int, heads: int, kv_heads: int, grad: str, g: int) -> None:
    setup = setup_of(ranks, heads, kv_heads)
    tokens = B * S // ranks
    kv, a, rows = tokens * kv_heads * D, tokens * heads * D, tokens * heads
    forward = (ranks - 1) * 2 * kv * E
    backward = (ranks - 1) * (2 * a * E + 8 * rows) + (ranks * a * g if ranks > 1 else 0)
    spec = f"burst:ring=flat,partition=contiguous,grad={grad}"
    assert sent_bytes(small_program(spec, setup, "forward")) == [forward] * ranks
    assert sent_bytes(small_program(spec, setup, "backward")) == [backward] * ranks


@pytest.mark.parametrize(("nodes", "per_node"), [(4, 8), (2, 3), (3, 1), (1, 4), (5, 2)])
def test_burst_double_ring_hops(nodes: int, per_node: int) -> None:
    """28 + 3 hops of activations, 29 + 4 of dQ for four nodes of eight."""
    setup = small_setup(nodes * per_node, ranks_per_node=per_node, seq_len=S * 4, heads=8, kv_heads=4, batch=B)
    program = small_program("burst:ring=double,partition=contiguous", setup)
    visiting = ("q", "do", "delta", "lse")
    expected = {
        ("intra", ("k", "v")): (per_node - 1) * nodes,
        ("inter", ("k", "v")): nodes - 1,
    }
    assert hops(program, "forward") == {key: count for key, count in expected.items() if count}
    expected = {
        ("intra", visiting): (per_node - 1) * nodes,
        ("inter", visiting): nodes - 1,
        ("intra", ("dq",)): (per_node - 1) * nodes + 1 if per_node > 1 else 0,
        ("inter", ("dq",)): nodes if nodes > 1 else 0,
    }
    assert hops(program, "backward") == {key: count for key, count in expected.items() if count}


def test_burst_double_ring_bytes() -> None:
    nodes, per_node, heads, kv_heads = 4, 8, 8, 4
    setup = small_setup(32, ranks_per_node=per_node, seq_len=S * 4, heads=heads, kv_heads=kv_heads, batch=B)
    tokens = B * S * 4 // 32
    kv, a, rows = tokens * kv_heads * D, tokens * heads * D, tokens * heads
    sent = 31 * 2 * kv * E + 31 * (2 * a * E + 8 * rows) + 33 * a * E
    assert sent_bytes(small_program("burst:ring=double,partition=contiguous", setup)) == [sent] * 32
    assert (nodes - 1) + (per_node - 1) * nodes == 31


def test_gqa_makes_burst_dearer_than_the_ring() -> None:
    """Burst's backward is cheaper only while H/K < 1.98 (fp32 gradients in the ring, head dim 128)."""
    mha, gqa = setup_of(5, 8, 8), setup_of(5, 8, 2)
    for setup, dearer in ((mha, False), (gqa, True)):
        burst, ring = [
            sent_bytes(small_program(f"{name}:partition=contiguous", setup, "backward"))[0]
            for name in ("burst", "ring")
        ]
        assert (burst > ring) is dearer


@pytest.mark.parametrize(
    ("ranks", "heads", "kv_heads"), [(1, 8, 4), (2, 8, 4), (4, 8, 4), (8, 8, 4), (8, 8, 2), (8, 8, 8)]
)
def test_ulysses(ranks: int, heads: int, kv_heads: int) -> None:
    setup = setup_of(ranks, heads, kv_heads)
    q, kv = B * S // ranks * heads * D, B * S // ranks * max(kv_heads, ranks) * D
    once = (2 * q + 2 * kv) * E * (ranks - 1) // ranks
    assert sent_bytes(small_program("ulysses", setup, "forward")) == [once if ranks > 1 else 0] * ranks
    assert sent_bytes(small_program("ulysses", setup)) == [2 * once if ranks > 1 else 0] * ranks


@pytest.mark.parametrize("ranks", [1, 2, 5, 8])
def test_apb(ranks: int) -> None:
    setup = setup_of(ranks, 8, 4)
    sent = (ranks - 1) * B * 6 * 4 * 2 * D * E
    assert sent_bytes(small_program("apb:anchor=8,passing=6", setup)) == [sent] * ranks

"""Partitions split the sequence; layouts follow what rings pass on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.masks import TokenRange, count_tokens, gather_tokens, parse_mask
from cost_models.workload import AttentionWorkload
from simulator.program.partition import Layout, Partition
from simulator.program.partitioners import build_partition
from simulator.program.setup import Setup
from traces.errors import InputError

SPLITTING = ["contiguous", "zigzag", "striped"]


def setup_of(n_ranks: int, ranks_per_node: int) -> Setup:
    return Setup(AttentionWorkload(1, 64, 4, 4, 16, 16, "bf16", parse_mask("causal", 64)), n_ranks, ranks_per_node)


@pytest.mark.parametrize("name", SPLITTING)
@given(parts=st.integers(1, 8), chunk=st.integers(1, 6))
def test_every_token_is_in_one_part(name: str, parts: int, chunk: int) -> None:
    seq_len = 2 * parts * chunk
    partition = build_partition(name, seq_len, parts)
    tokens = [gather_tokens(partition.ranges(part)) for part in range(parts)]
    assert sorted(np.concatenate(tokens)) == list(range(seq_len))
    assert partition.tokens.tolist() == [len(each) for each in tokens]
    assert partition.uniform_tokens == 2 * chunk
    assert (partition.name, partition.parts) == (name, parts)


def test_where_the_tokens_are() -> None:
    assert build_partition("contiguous", 12, 3).ranges(1) == (TokenRange(4, 8),)
    assert build_partition("zigzag", 12, 3).ranges(1) == (TokenRange(2, 4), TokenRange(8, 10))
    assert build_partition("striped", 12, 3).ranges(1) == (TokenRange(1, 12, 3),)
    whole = Layout.whole(13, 3)
    assert [whole.ranges(rank) for rank in range(3)] == [(TokenRange(0, 13),)] * 3


@given(st.integers(1, 8), st.integers(1, 6))
def test_law_zigzag_gives_every_rank_the_same_causal_work(parts: int, chunk: int) -> None:
    seq_len, causal = 2 * parts * chunk, parse_mask("causal")
    zigzag, all_keys = build_partition("zigzag", seq_len, parts), [TokenRange(0, seq_len)]
    work = {causal.count_pairs(zigzag.ranges(part), all_keys, seq_len) for part in range(parts)}
    assert work == {causal.area(seq_len) // parts}


def test_parts_of_unequal_length() -> None:
    uneven = Partition("uneven", np.array([[0, 8], [3, 9]]), np.array([[3, 9], [8, 9]]))
    assert uneven.tokens.tolist() == [4, 5]
    assert uneven.uniform_tokens is None
    assert uneven.ranges(1) == (TokenRange(3, 8),)
    assert np.array_equal(Layout(uneven, np.array([1, 0])).tokens, [5, 4])


@pytest.mark.parametrize(
    ("name", "seq_len", "parts", "words"),
    [
        ("ziggy", 16, 2, "unknown partition: got ziggy, expected one of contiguous, zigzag"),
        ("contiguous", 10, 4, "seq_len 10 is not divisible by 4 contiguous chunks; use a multiple of 4"),
        ("zigzag", 12, 4, "seq_len 12 is not divisible by 2 x 4 zigzag chunks; use a multiple of 8"),
        ("striped", 10, 4, "seq_len 10 is not divisible by 4"),
    ],
)
def test_bad_partitions(name: str, seq_len: int, parts: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_partition(name, seq_len, parts)


@given(st.data(), st.integers(1, 4), st.integers(1, 4))
def test_layouts_follow_the_rings(data: st.DataObject, nodes: int, per_node: int) -> None:
    """Any series of hops: what a rank holds is what its predecessor in that ring held."""
    n_ranks = nodes * per_node
    setup = setup_of(n_ranks, per_node)
    partition = build_partition("zigzag", 4 * n_ranks, n_ranks)
    layout, held = Layout.home(partition), list(range(n_ranks))
    for kind in data.draw(st.lists(st.sampled_from(["flat", "inner", "outer"]), max_size=8)):
        if kind == "flat":
            ring, source = setup.flat_ring(), [(r - 1) % n_ranks for r in range(n_ranks)]
        elif kind == "inner":
            ring = setup.inner_ring()
            source = [r // per_node * per_node + (r - 1) % per_node for r in range(n_ranks)]
        else:
            ring, source = setup.outer_ring(), [(r - per_node) % n_ranks for r in range(n_ranks)]
        layout, held = layout.moved(ring), [held[s] for s in source]
        assert layout.owner.tolist() == held
    assert [layout.ranges(rank) for rank in range(n_ranks)] == [partition.ranges(part) for part in held]
    assert layout.tokens == 4
    if layout.shift is not None:
        assert held == [(r + layout.shift) % n_ranks for r in range(n_ranks)]


def test_a_whole_turn_brings_everything_home() -> None:
    ring, layout = setup_of(6, 6).flat_ring(), Layout.home(build_partition("striped", 12, 6))
    for _ in range(6):
        layout = layout.moved(ring)
    assert layout.owner.tolist() == list(range(6))
    assert count_tokens(layout.ranges(5)) == 2

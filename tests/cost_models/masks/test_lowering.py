"""Kernel calls compute the allowed pairs, each once; the usual cases are the few launches known from practice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.masks import (
    MAX_LAUNCHES,
    BlockMask,
    KernelCall,
    Mask,
    Segment,
    TokenRange,
    apb_mask,
    count_tokens,
    gather_tokens,
    lower,
    parse_mask,
)
from cost_models.masks.blocks import Block
from cost_models.masks.cells import build_cell, merge_cells
from cost_models.masks.launches import pack_cells
from tests.cost_models.masks.examples import (
    allowed_matrix,
    disjoint_ranges,
    document_lengths,
    masks,
    masks_and_lengths,
    times_computed,
)
from traces.errors import InputError


def assert_each_pair_once(
    mask: Mask, q: Sequence[TokenRange], k: Sequence[TokenRange], seq_len: int
) -> None:  # fmt: skip
    lowering = lower(mask, q, k, seq_len)
    expected = allowed_matrix(mask, gather_tokens(q), gather_tokens(k))
    assert np.array_equal(times_computed(lowering, *expected.shape), expected)
    assert lowering.pairs == expected.sum() == mask.count_pairs(q, k, seq_len)
    assert lowering.exact_kernel == (len(lowering.calls) <= MAX_LAUNCHES)
    for call in lowering.calls:
        rows = [(segment.q_start, segment.q_stop) for segment in call.segments]
        assert all(stop <= start for (_, stop), (start, _) in zip(rows, rows[1:], strict=False))


def zigzag(rank: int, ranks: int, seq_len: int) -> list[TokenRange]:
    chunk = seq_len // (2 * ranks)
    return [TokenRange(c * chunk, (c + 1) * chunk) for c in (rank, 2 * ranks - 1 - rank)]


def striped(rank: int, ranks: int, seq_len: int) -> list[TokenRange]:
    return [TokenRange(rank, seq_len, ranks)]


def contiguous(rank: int, ranks: int, seq_len: int) -> list[TokenRange]:
    chunk = seq_len // ranks
    return [TokenRange(rank * chunk, (rank + 1) * chunk)]


@given(st.data(), masks_and_lengths(), st.integers(1, 4))
def test_random_ranges(data: st.DataObject, case: tuple[Mask, int], stride: int) -> None:
    mask, seq_len = case
    q, k = data.draw(disjoint_ranges(seq_len, stride)), data.draw(disjoint_ranges(seq_len, stride))
    assert_each_pair_once(mask, q, k, seq_len)


@pytest.mark.parametrize("shard", [contiguous, zigzag, striped])
@given(data=st.data(), ranks=st.integers(1, 4), chunk=st.integers(1, 5))
def test_partitions(shard, data: st.DataObject, ranks: int, chunk: int) -> None:  # type: ignore[no-untyped-def]
    seq_len = 2 * ranks * chunk
    mask = data.draw(masks(seq_len))
    q, k = (shard(data.draw(st.integers(0, ranks - 1)), ranks, seq_len) for _ in "qk")
    assert_each_pair_once(mask, q, k, seq_len)


@given(st.data(), st.integers(1, 2))
def test_many_documents(data: st.DataObject, stride: int) -> None:
    """Enough of them that blocks are found through their index."""
    lengths = "+".join(map(str, data.draw(document_lengths(160, longest=5))))
    mask = parse_mask(f"prefix-document:lengths={lengths},prefix=2", 160)
    q, k = data.draw(disjoint_ranges(160, stride)), data.draw(disjoint_ranges(160, stride))
    assert_each_pair_once(mask, q, k, 160)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9))
def test_apb_on_its_own_axes(passing: int, anchor: int, local: int) -> None:
    mask = apb_mask(passing, anchor, local)
    assert_each_pair_once(mask, mask.q_ranges, mask.k_ranges, passing + anchor + local)
    if passing and anchor:
        calls = lower(mask, mask.q_ranges, mask.k_ranges, passing + anchor + local).calls
        assert len(calls) <= 2


@given(st.data(), masks_and_lengths(), st.integers(1, 4), st.integers(1, 4))
def test_unequal_strides_work_wherever_the_band_does_not_cut(
    data: st.DataObject, case: tuple[Mask, int], q_stride: int, k_stride: int
) -> None:
    mask, seq_len = case
    q, k = data.draw(disjoint_ranges(seq_len, q_stride)), data.draw(disjoint_ranges(seq_len, k_stride))
    try:
        assert_each_pair_once(mask, q, k, seq_len)
    except InputError as error:
        assert "differ in stride" in error.message
        assert q_stride != k_stride
        assert any(block.lo is not None or block.hi is not None for block in mask.blocks(seq_len))


def test_unequal_strides_on_either_side_of_the_diagonal() -> None:
    causal, even, low, high = parse_mask("causal"), TokenRange(8, 16, 2), TokenRange(0, 8), TokenRange(15, 24)
    assert lower(causal, [even], [low], 24).calls == (KernelCall((Segment(0, 4, 0, 8),), None, None),)
    assert lower(causal, [even], [high], 24).calls == ()
    with pytest.raises(InputError, match="differ in stride"):
        lower(causal, [even], [TokenRange(0, 16)], 24)


# The usual cases. Local rows and columns of a rank that holds 2 c tokens.

CAUSAL = parse_mask("causal")
S, P = 64, 4
LOCAL = S // P


@pytest.mark.parametrize("shard", [contiguous, zigzag, striped])
def test_own_step_is_one_causal_call(shard) -> None:  # type: ignore[no-untyped-def]
    for rank in range(P):
        own = shard(rank, P, S)
        assert lower(CAUSAL, own, own, S).calls == (KernelCall((Segment(0, LOCAL, 0, LOCAL),), None, 0),)


@pytest.mark.parametrize(("q_rank", "k_rank"), [(q, k) for q in range(P) for k in range(P) if q != k])
def test_the_zigzag_ring(q_rank: int, k_rank: int) -> None:
    """Keys of a lower rank: all rows see the first half of them; of a higher one: half of the rows see all."""
    half = LOCAL // 2
    seen = Segment(0, LOCAL, 0, half) if q_rank > k_rank else Segment(half, LOCAL, 0, LOCAL)
    lowering = lower(CAUSAL, zigzag(q_rank, P, S), zigzag(k_rank, P, S), S)
    assert lowering.calls == (KernelCall((seen,), None, None),)
    assert lowering.pairs == LOCAL * LOCAL // 2


@pytest.mark.parametrize(("q_rank", "k_rank"), [(q, k) for q in range(P) for k in range(P) if q != k])
def test_the_striped_ring(q_rank: int, k_rank: int) -> None:
    """Keys of a lower rank: causal; of a higher one: causal without the diagonal, so no first row and last column."""
    seen = Segment(0, LOCAL, 0, LOCAL) if q_rank > k_rank else Segment(1, LOCAL, 0, LOCAL - 1)
    calls = lower(CAUSAL, striped(q_rank, P, S), striped(k_rank, P, S), S).calls
    assert calls == (KernelCall((seen,), None, 0),)


def test_the_contiguous_ring() -> None:
    assert lower(CAUSAL, contiguous(2, P, S), contiguous(1, P, S), S).calls == (
        KernelCall((Segment(0, LOCAL, 0, LOCAL),), None, None),
    )
    assert lower(CAUSAL, contiguous(1, P, S), contiguous(2, P, S), S) == lower(CAUSAL, [], [], S)
    assert lower(CAUSAL, [], [], S).calls == ()


def test_all_gathered_keys_are_one_causal_call_by_the_bottom_right_rule() -> None:
    calls = lower(CAUSAL, contiguous(2, P, S), [TokenRange(0, S)], S).calls
    assert calls == (KernelCall((Segment(0, LOCAL, 0, 3 * LOCAL),), None, 0),)


def test_a_window_is_a_window() -> None:
    whole = [TokenRange(0, S)]
    one = Segment(0, S, 0, S)
    assert lower(parse_mask("sliding-window:window=8,causal=true"), whole, whole, S).calls == (
        KernelCall((one,), 7, 0),
    )  # fmt: skip
    assert lower(parse_mask("sliding-window:window=8"), whole, whole, S).calls == (KernelCall((one,), 7, 7),)


@pytest.mark.parametrize(("options", "right"), [("", None), (",causal=true", 0)])
def test_packed_documents_are_one_varlen_call(options: str, right: int | None) -> None:
    mask = parse_mask(f"document:lengths=10+30+24{options}", S)
    segments = Segment(0, 10, 0, 10), Segment(10, 40, 10, 40), Segment(40, 64, 40, 64)
    assert lower(mask, [TokenRange(0, S)], [TokenRange(0, S)], S).calls == (KernelCall(segments, None, right),)


def test_two_thousand_documents_are_one_call_on_every_rank() -> None:
    mask = parse_mask("document:causal=true,lengths=" + "+".join(["50"] * 2000), 100_000)
    for rank in range(8):
        own = contiguous(rank, 8, 100_000)
        (call,) = lower(mask, own, own, 100_000).calls
        assert len(call.segments) == 250


def test_a_shared_question_is_one_call_more_than_the_documents() -> None:
    mask = parse_mask("share-question:lengths=4+30+30", S)
    calls = lower(mask, [TokenRange(0, S)], [TokenRange(0, S)], S).calls
    assert sum(len(call.segments) for call in calls) == 3
    assert len(calls) == 2


def test_more_launches_than_are_sensible_ask_for_a_general_kernel() -> None:
    """A chequerboard of single pairs: every row needs as many launches as it has runs of keys."""

    def chequered(n: int) -> BlockMask:
        blocks = tuple(Block(q, q + 1, k, k + 1) for q in range(n) for k in range(q % 2, n, 2))
        return BlockMask(blocks, n, n, "chequered")

    for n, exact in ((2 * MAX_LAUNCHES, True), (2 * MAX_LAUNCHES + 2, False)):
        mask = chequered(n)
        lowering = lower(mask, mask.q_ranges, mask.k_ranges, n)
        assert len(lowering.calls) == n // 2
        assert lowering.exact_kernel is exact
        assert lowering.pairs == n * n // 2


@given(st.data(), masks_and_lengths(), st.integers(1, 3))
def test_law_merging_keeps_the_pairs_and_packing_the_cells(
    data: st.DataObject, case: tuple[Mask, int], stride: int
) -> None:
    mask, seq_len = case
    q, k = data.draw(disjoint_ranges(seq_len, stride)), data.draw(disjoint_ranges(seq_len, stride))
    found = [
        build_cell(block, one, other, count_tokens(q[:i]), count_tokens(k[:j]))
        for block in mask.blocks(seq_len)
        for i, one in enumerate(q)
        for j, other in enumerate(k)
    ]
    cells = [cell for cell in found if cell]
    merged = merge_cells(cells)
    assert len(merged) <= len(cells)
    assert sum(cell.pairs for cell in merged) == sum(cell.pairs for cell in cells)
    calls = pack_cells(merged)
    packed = [segment for call in calls for segment in call.segments]
    assert sorted((s.q_start, s.q_stop, s.k_start, s.k_stop) for s in packed) == sorted(cell[:4] for cell in merged)

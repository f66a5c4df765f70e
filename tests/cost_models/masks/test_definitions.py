"""Blocks hold exactly the pairs of the mask's definition, once each; areas are the literature's."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.masks import Block, BlockMask, CausalMask, Mask, TokenRange, apb_mask, parse_mask
from cost_models.masks.blocks import UNBOUNDED
from cost_models.masks.sparse import MAX_TILES
from tests.cost_models.masks.examples import Matrix, allowed_matrix, masks_and_lengths
from traces.errors import InputError


def times_in_blocks(blocks: tuple[Block, ...], rows: int, columns: int) -> Matrix:
    """How many blocks hold each pair, by the definition of a block."""
    times = np.zeros((rows, columns), dtype=np.int64)
    for b in blocks:
        for q in range(b.q_start, b.q_stop):
            for k in range(b.k_start, b.k_stop):
                times[q, k] += (b.lo is None or q - k >= b.lo) and (b.hi is None or q - k <= b.hi)
    return times


@given(masks_and_lengths())
def test_blocks_are_the_definition(case: tuple[Mask, int]) -> None:
    mask, seq_len = case
    tokens = np.arange(seq_len)
    expected = allowed_matrix(mask, tokens, tokens)
    assert np.array_equal(times_in_blocks(mask.blocks(seq_len), seq_len, seq_len), expected)
    assert mask.area(seq_len) == expected.sum()


@given(masks_and_lengths())
def test_causal_masks_see_no_later_key_and_every_query_sees_one(case: tuple[Mask, int]) -> None:
    mask, seq_len = case
    tokens = np.arange(seq_len)
    allowed = allowed_matrix(mask, tokens, tokens)
    assert allowed.any(axis=1).all()
    if mask.is_causal:
        assert not np.triu(allowed, 1).any()


@given(masks_and_lengths())
def test_translation_invariant_masks_are_one_band_of_all_tokens(case: tuple[Mask, int]) -> None:
    mask, seq_len = case
    if mask.translation_invariant:
        (block,) = mask.blocks(seq_len)
        assert (block.q_start, block.q_stop, block.k_start, block.k_stop) == (0, seq_len, 0, seq_len)


@pytest.mark.parametrize("text", ["causal", "sliding-window:window=3,causal=true", "document:lengths=3+5,causal=true"])
def test_which_are_causal(text: str) -> None:
    assert parse_mask(text, 8).is_causal
    assert not parse_mask(text.replace(",causal=true", "").replace("causal", "full"), 8).is_causal


# One picture per mask: rows are queries, columns keys. The pictures are the contract's words, drawn by hand.
PICTURES = {
    "full": "1111 1111 1111 1111",
    "causal": "1000 1100 1110 1111",
    "sliding-window:window=2": "1100 1110 0111 0011",
    "sliding-window:window=2,causal=true": "1000 1100 0110 0011",
    "document:lengths=3+1": "1110 1110 1110 0001",
    "document:lengths=1+3,causal=true": "1000 0100 0110 0111",
    "share-question:lengths=1+2+1": "1000 1100 1110 1001",
    "causal-blockwise:lengths=1+1+2": "1000 0100 1110 1111",
    "global-sliding:window=1,global=1": "1111 1100 1010 1001",
    "prefix-causal:prefix=2": "1100 1100 1110 1111",
    "prefix-document:lengths=1+3,prefix=2": "1000 0110 0110 0111",
    "block-causal-document:lengths=4,block=2": "1100 1100 1111 1111",
    "block-sparse:block=2,keep=1": "1111 1111 1111 1111",
}


@pytest.mark.parametrize("text", PICTURES)
def test_pictures(text: str) -> None:
    allowed = allowed_matrix(parse_mask(text, 4), np.arange(4), np.arange(4))
    assert " ".join("".join(map(str, row)) for row in allowed.tolist()) == PICTURES[text]


@pytest.mark.parametrize(
    ("text", "area"),
    [
        # LongCA-bench (arXiv 2510.17896), section 2.1, at S = 10^7; w there counts the keys beside the query's own.
        ("full", 10**14),
        ("causal", 10**7 * (10**7 + 1) // 2),
        ("sliding-window:window=1025", 10**7 * 2049 - 1024 * 1025),
        ("sliding-window:window=1025,causal=true", 10**7 * 1025 - 1024 * 1025 // 2),
        ("document:lengths=4000000+6000000", 52 * 10**12),
        ("share-question:lengths=4000000+6000000", 10**7 * (10**7 + 1) // 2),
        ("global-sliding:window=1025,global=10", 2 * 10 * 10**7 - 100 + (10**7 - 10) * 2049 - 1024 * 1025),
        ("document:lengths=4000000+6000000,causal=true", 2 * 10**6 * 4000001 + 3 * 10**6 * 6000001),
        (
            "share-question:lengths=1000000+4000000+5000000",
            sum(n * (n + 1) // 2 for n in (10**6, 4 * 10**6, 5 * 10**6)) + 10**6 * 9 * 10**6,
        ),
        (
            "causal-blockwise:lengths=4000000+5000000+1000000",
            sum(n * (n + 1) // 2 for n in (4 * 10**6, 5 * 10**6)) + 10**6 * 9 * 10**6 + 10**6 * (10**6 + 1) // 2,
        ),
        ("prefix-document:lengths=9999000+1000,prefix=2000", 9999000 * 9999001 // 2 + 2000 * 1999 // 2 + 1000**2),
        ("prefix-causal:prefix=1000", 10**7 * (10**7 + 1) // 2 + 1000 * 999 // 2),
        ("block-causal-document:lengths=10000000,block=1000000", 10**12 * 10 * 11 // 2),
    ],
)
def test_published_areas(text: str, area: int) -> None:
    assert parse_mask(text, 10**7).area(10**7) == area


@given(st.integers(8, 400), st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_published_areas_at_any_size(seq_len: int, window: int, first: int, prefix: int) -> None:
    """As printed, with the benchmark's w = window - 1 keys beside the query's own; for w < S and g + w < S."""
    w, g, p, s = min(window, seq_len) - 1, min(first, seq_len - 1), min(prefix, seq_len), seq_len
    areas = {
        f"sliding-window:window={w + 1}": s * (2 * w + 1) - w * (w + 1),
        f"sliding-window:window={w + 1},causal=true": s * (w + 1) - w * (w + 1) // 2,
        f"prefix-causal:prefix={p}": s * (s + 1) // 2 + p * (p - 1) // 2,
    }
    if g + w < s:
        n = s - g
        areas[f"global-sliding:window={w + 1},global={g}"] = 2 * g * s - g * g + n * (2 * w + 1) - w * (w + 1)
    for text, area in areas.items():
        assert parse_mask(text, s).area(s) == area


@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 12))
def test_apb_sees_the_anchor_causally_and_the_passing_block_whole(passing: int, anchor: int, local: int) -> None:
    mask = apb_mask(passing, anchor, local)
    rows, columns = anchor + local, passing + anchor + local
    expected = np.zeros((rows, columns), dtype=np.int64)
    expected[:anchor, passing : passing + anchor] = np.tri(anchor)
    expected[anchor:, : passing + anchor] = 1
    expected[anchor:, passing + anchor :] = np.tri(local)
    assert np.array_equal(times_in_blocks(mask.blocks(columns), rows, columns), expected)
    assert np.array_equal(allowed_matrix(mask, np.arange(rows), np.arange(columns)), expected)
    assert mask.count_pairs(mask.q_ranges, mask.k_ranges, columns) == expected.sum()


def test_a_mask_of_given_blocks_says_its_label() -> None:
    mask = BlockMask((Block(0, 2, 0, 3, lo=0), Block(2, 3, 1, 2, hi=0)), 3, 3, "mine")
    assert str(mask) == "mine"
    assert allowed_matrix(mask, np.arange(3), np.arange(3)).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert mask == BlockMask(mask.explicit_blocks, 3, 3, "mine")
    assert mask.q_ranges == mask.k_ranges == (TokenRange(0, 3),)


@given(st.integers(1, 1500), st.integers(5, 400), st.floats(0.01, 1), st.integers(0, 9))
def test_block_sparse_keeps_its_share_of_every_row(seq_len: int, block: int, keep: float, seed: int) -> None:
    blocks = parse_mask(f"block-sparse:block={block},keep={keep},seed={seed}", seq_len).blocks(seq_len)
    side = -(-seq_len // block)
    missing = side * block - seq_len
    kept = Counter[int]()
    for each in blocks:
        kept[each.q_start] += each.k_stop - each.k_start
    assert sorted(kept) == list(range(0, seq_len, block))
    whole = max(1, int(keep * side + 1e-9)) * block
    assert set(kept.values()) <= {whole, whole - missing}


@given(st.integers(1, 1500), st.integers(5, 400), st.floats(0.01, 1), st.integers(0, 9))
def test_variable_blocks_have_their_number_and_least_size(seq_len: int, block: int, keep: float, seed: int) -> None:
    text = f"block-sparse:block={block},keep={keep},seed={seed},variable=true"
    blocks = parse_mask(text, seq_len).blocks(seq_len)
    starts = sorted({each.q_start for each in blocks})
    assert len(starts) == max(1, seq_len // block)
    least = min(128, max(1, block // 2), seq_len)
    assert np.diff([*starts, seq_len]).min() >= least
    assert min(each.k_stop - each.k_start for each in blocks) >= least


def test_variable_blocks_differ_in_rows_and_columns() -> None:
    blocks = parse_mask("block-sparse:block=512,keep=0.5,variable=true", 1 << 14).blocks(1 << 14)
    heights = np.diff(sorted({each.q_start for each in blocks}))
    assert heights.min() >= 128
    assert len(set(heights.tolist())) > len(heights) / 2
    assert {each.q_start for each in blocks} != {each.k_start for each in blocks}


def test_block_sparse_is_drawn_again_alike_and_otherwise_by_another_seed() -> None:
    first, again, other = (parse_mask(f"block-sparse:block=16,seed={seed}", 4096) for seed in (1, 1, 2))
    assert first.blocks(4096) == again.blocks(4096) != other.blocks(4096)
    assert first.area(4096) == other.area(4096)


def test_block_sparse_refuses_what_cannot_be_drawn() -> None:
    with pytest.raises(InputError, match="too many tiles.* 4096 a side.* use block=256 or more"):
        parse_mask("block-sparse", 1 << 19)
    assert MAX_TILES == 2048**2
    with pytest.raises(InputError, match="drawn for another seq_len"):
        parse_mask("block-sparse", 1024).blocks(2048)
    with pytest.raises(InputError, match="not bound to a sequence length"):
        parse_mask("block-sparse").allowed(np.arange(2), np.arange(2))


@pytest.mark.parametrize(("seq_len", "what"), [(0, "too small"), (-4, "too small"), (UNBOUNDED + 1, "too large")])
def test_lengths_that_no_sequence_has(seq_len: int, what: str) -> None:
    with pytest.raises(InputError, match=f"seq_len is {what}"):
        CausalMask().blocks(seq_len)

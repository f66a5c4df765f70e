"""Partitions that follow documents and areas, and parts cut in pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.masks import DocumentMask, TokenRange, gather_tokens, parse_mask
from simulator.program.partition import Layout, Partition, rows_of, same_order
from simulator.program.partitioners import PARTITIONERS, build_partition, default_chunk, dispatch_chunks, split_parts
from simulator.program.rings import Ring
from traces.errors import InputError


def tokens_of(partition: Partition) -> list[list[int]]:
    return [gather_tokens(partition.ranges(part)).tolist() for part in range(partition.parts)]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 6), st.sampled_from([1, 4]))
def test_document_zigzag(lengths: list[int], parts: int, multiple: int) -> None:
    """Chunks r and 2P-1-r of every document; as many rows for all; padding lies beyond the sequence."""
    mask = parse_mask("document:lengths=" + "+".join(map(str, lengths)))
    assert isinstance(mask, DocumentMask)
    seq_len = sum(lengths)
    held = tokens_of(build_partition("document-zigzag", seq_len, parts, mask, multiple=multiple))
    for part, tokens in enumerate(held):
        expected = []
        for start, stop in mask.spans:
            chunk = -(-(stop - start) // (2 * parts))
            for place in (part, 2 * parts - 1 - part):
                first = start + place * chunk
                expected += range(min(first, stop), min(first + chunk, stop))
        assert [token for token in tokens if token < seq_len] == expected
    padded = sum(2 * -(-length // (2 * parts)) for length in lengths)
    assert {len(tokens) for tokens in held} == {-(-padded // multiple) * multiple}
    everything = sorted(token for tokens in held for token in tokens)
    assert everything == list(range(len(everything)))


def test_document_zigzag_without_documents_is_zigzag() -> None:
    causal = parse_mask("causal")
    assert tokens_of(build_partition("document-zigzag", 48, 4, causal)) == tokens_of(build_partition("zigzag", 48, 4))


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=6), st.integers(1, 5))
def test_dispatch_gives_each_part_as_many_chunks(areas: list[int], parts: int) -> None:
    areas = areas * parts
    chosen = dispatch_chunks(areas, parts)
    assert {len(each) for each in chosen} == {len(areas) // parts}
    assert sorted(chunk for each in chosen for chunk in each) == list(range(len(areas)))
    loads = [sum(areas[chunk] for chunk in each) for each in chosen]
    # The greedy order: at most the largest chunk apart while every part takes more; full parts can fall behind by more.
    assert max(loads) <= sum(areas) / parts + max(areas)


@pytest.mark.parametrize(
    "mask", ["causal", "document:lengths=512+100+412+1024,causal=true", "sliding-window:window=64"]
)
def test_area_balanced_balances(mask: str) -> None:
    parsed, seq_len, parts = parse_mask(mask, 2048), 2048, 4
    partition = build_partition("area-balanced", seq_len, parts, parsed)
    whole = [TokenRange(0, seq_len)]
    work = [parsed.count_pairs(partition.ranges(part), whole, seq_len) for part in range(parts)]
    assert max(work) / (sum(work) / parts) < 1.03
    assert sorted(sum(tokens_of(partition), [])) == list(range(seq_len))
    assert partition.uniform_tokens == seq_len // parts


def test_which_chunks_a_small_causal_sequence_gives() -> None:
    """4 chunks of areas 3, 7, 11, 15 on two parts: 15 + 3 and 11 + 7."""
    partition = build_partition("area-balanced", 8, 2, parse_mask("causal"), chunk=2)
    assert tokens_of(partition) == [[0, 1, 6, 7], [2, 3, 4, 5]]


@pytest.mark.parametrize("name", PARTITIONERS)
@pytest.mark.parametrize(("step", "pieces"), [(1, 2), (1, 3), (4, 2), (2, 2)])
def test_pieces_make_up_parts(name: str, step: int, pieces: int) -> None:
    """Ranks step apart hold together, in order, what one part holds."""
    whole = build_partition(name, 4 * 4 * 6, 4, parse_mask("causal"), multiple=pieces)
    split = split_parts(whole, step, pieces)
    group = Ring("heads", step, pieces, 4 * pieces)
    assert split.parts == 4 * pieces
    for number, members in enumerate(group.members.tolist()):
        together = [token for rank in members for token in gather_tokens(split.ranges(rank)).tolist()]
        assert together == gather_tokens(whole.ranges(number)).tolist()
    assert same_order(Layout.home(split).gathered(group), Layout(whole, group.groups))


@given(st.permutations(range(12)), st.integers(0, 12))
def test_rows_of_tokens(tokens: list[int], kept: int) -> None:
    source, target = np.array(tokens[:kept], dtype=np.int64), np.arange(12)
    expected = [tokens.index(token) if token in tokens[:kept] else -1 for token in range(12)]
    assert rows_of(source, target).tolist() == expected


def test_layouts_of_some_ranks() -> None:
    layout = Layout.home(build_partition("contiguous", 12, 3)).only(np.array([True, False, True]))
    assert [layout.tokens_of(rank).tolist() for rank in range(3)] == [[0, 1, 2, 3], [], [8, 9, 10, 11]]
    assert np.asarray(layout.tokens).tolist() == [4, 0, 4]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("area-balanced", {"chunk": 5}, "seq_len 48 is not divisible by 4 x 5, area-balanced chunks"),
        ("zigzag", {"multiple": 5}, "zigzag parts of 12 tokens are not divisible by 5"),
        ("area-balanced", {"multiple": 5}, "parts of 12 tokens are not divisible by 5"),
    ],
)
def test_what_does_not_divide(name: str, options: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_partition(name, 48, 4, parse_mask("causal"), **options)


@given(st.integers(1, 10**7), st.integers(1, 64))
def test_chunks_divide_and_are_8_to_64_a_part(tokens: int, parts: int) -> None:
    chunk = default_chunk(tokens * parts, parts)
    assert tokens % chunk == 0
    assert chunk <= max(1, tokens // 8)

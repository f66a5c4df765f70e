"""All ranks at once give what every rank by itself does."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.masks import Lowering, Mask, TokenRange, gather_tokens, lower, parse_mask
from simulator.program.lowered import LoweringColumn, column_of, len_of_union
from simulator.program.lowering_table import MANY_RANGES, LoweringTable
from simulator.program.partition import Layout, Partition
from simulator.program.partitioners import build_partition
from tests.cost_models.masks.examples import allowed_matrix, document_lengths, times_computed

NAMES = ["contiguous", "zigzag", "striped", "whole"]
ONE_BAND = ["full", "causal"] + [
    f"sliding-window:window={window}{causal}" for window in (1, 3, 8, 17, 40) for causal in ("", ",causal=true")
]


def split(name: str, seq_len: int, parts: int) -> Partition:
    """A partition by name; in `whole`, every part is the sequence."""
    if name != "whole":
        return build_partition(name, seq_len, parts)
    return Partition.of(name, [[TokenRange(0, seq_len)]] * parts)


def lowered_alone(mask: Mask, seq_len: int, queries: Layout, keys: Layout) -> list[Lowering]:
    return [lower(mask, queries.ranges(r), keys.ranges(r), seq_len) for r in range(queries.partition.parts)]


def assert_column(column: LoweringColumn, expected: list[Lowering]) -> None:
    """Every view of the column says the same as the lowerings one by one."""
    n = len(expected)
    assert [column.of(rank) for rank in range(n)] == expected
    pairs = [lowering.pairs for lowering in expected]
    assert np.broadcast_to(column.pairs, n).tolist() == pairs
    active = np.ones(n, dtype=bool) if column.active is None else column.active
    assert active.tolist() == [each > 0 for each in pairs]
    assert (column.active is None) == (min(pairs) > 0)
    table = column.table
    launches = [len(lowering.calls) for lowering in expected]
    assert np.broadcast_to(column.gather(table.launches), n).tolist() == launches
    assert table.has_empty == any(not lowering.calls for lowering in table.lowerings)
    for side in "qk":
        covered = [len(locals_touched(lowering, side)) for lowering in expected]
        assert np.broadcast_to(column.gather(table.covered(side)), n).tolist() == covered


def locals_touched(lowering: Lowering, side: str) -> set[int]:
    segments = [segment for call in lowering.calls for segment in call.segments]
    bounds = [(s.q_start, s.q_stop) if side == "q" else (s.k_start, s.k_stop) for s in segments]
    return {position for start, stop in bounds for position in range(start, stop)}


def rotated(partition: Partition, shift: int, *, as_shift: bool) -> Layout:
    parts = partition.parts
    if as_shift:
        return Layout(partition, None, shift % parts)
    return Layout(partition, (np.arange(parts) + shift) % parts)


@pytest.mark.parametrize("text", ONE_BAND)
@pytest.mark.parametrize("name", NAMES)
def test_rings_of_every_size_and_turn(name: str, text: str) -> None:
    for parts in range(1, 9):
        seq_len = 2 * parts * 4
        mask, partition = parse_mask(text, seq_len), split(name, seq_len, parts)
        alone = {(q, k): lower(mask, partition.ranges(q), partition.ranges(k), seq_len) for q, k in
                 product(range(parts), repeat=2)}  # fmt: skip
        for as_shift in (True, False):
            table = LoweringTable(mask, seq_len, partition, partition)
            for q_shift, k_shift in product({0, 1, parts // 2, parts - 1}, range(parts)):
                queries, keys = (rotated(partition, shift, as_shift=as_shift) for shift in (q_shift, k_shift))
                column = table.column(queries, keys)
                expected = [alone[(r + q_shift) % parts, (r + k_shift) % parts] for r in range(parts)]
                assert [column.of(rank) for rank in range(parts)] == expected
            assert_column(column, expected)


@given(st.data(), st.integers(1, 6), st.integers(1, 4), st.sampled_from(ONE_BAND))
def test_any_owners_and_two_partitions(data: st.DataObject, parts: int, chunk: int, text: str) -> None:
    seq_len = 2 * parts * chunk
    mask = parse_mask(text, seq_len)
    q_name = data.draw(st.sampled_from(NAMES))
    # Where the mask cuts, queries and keys need one stride: striped goes with striped.
    k_name = q_name if q_name == "striped" else data.draw(st.sampled_from(["contiguous", "zigzag", "whole"]))
    partitions = split(q_name, seq_len, parts), split(k_name, seq_len, parts)
    table = LoweringTable(mask, seq_len, *partitions)
    for _ in range(3):
        owners = (np.array(data.draw(st.permutations(range(parts)))) for _ in "qk")
        queries, keys = (Layout(*each) for each in zip(partitions, owners, strict=True))
        assert_column(table.column(queries, keys), lowered_alone(mask, seq_len, queries, keys))


@given(st.data(), st.integers(1, 6), st.integers(1, 4), st.sampled_from(NAMES))
def test_documents(data: st.DataObject, parts: int, chunk: int, name: str) -> None:
    seq_len = 2 * parts * chunk
    lengths = "+".join(map(str, data.draw(document_lengths(seq_len))))
    kind = data.draw(st.sampled_from(["document", "share-question", "causal-blockwise"]))
    mask, partition = parse_mask(f"{kind}:lengths={lengths}", seq_len), split(name, seq_len, parts)
    table = LoweringTable(mask, seq_len, partition, partition)
    for shift in range(parts):
        queries, keys = Layout.home(partition), rotated(partition, -shift, as_shift=True)
        assert_column(table.column(queries, keys), lowered_alone(mask, seq_len, queries, keys))


@given(st.data(), st.integers(2, 6), st.sampled_from(ONE_BAND))
def test_parts_in_no_regular_order(data: st.DataObject, parts: int, text: str) -> None:
    """Equal chunks dealt at random, as a balancing partition does: starts do not follow the rank."""
    seq_len = 2 * parts * 3
    start = 3 * np.array(data.draw(st.permutations(range(2 * parts)))).reshape(parts, 2)
    partition, mask = Partition("dealt", start, start + 3), parse_mask(text, seq_len)
    table = LoweringTable(mask, seq_len, partition, partition)
    for shift in range(parts):
        queries, keys = Layout.home(partition), rotated(partition, shift, as_shift=True)
        column = table.column(queries, keys)
        for rank, alone in enumerate(lowered_alone(mask, seq_len, queries, keys)):
            assert column.of(rank).pairs == alone.pairs
            rows, columns = gather_tokens(queries.ranges(rank)), gather_tokens(keys.ranges(rank))
            times = times_computed(column.of(rank), len(rows), len(columns))
            assert np.array_equal(times, allowed_matrix(mask, rows, columns))


@pytest.mark.parametrize("name", NAMES)
def test_all_steps_of_a_ring_add_up_to_the_mask(name: str) -> None:
    parts, seq_len, mask = 6, 96, parse_mask("sliding-window:window=20,causal=true", 96)
    partition = split(name, seq_len, parts)
    table = LoweringTable(mask, seq_len, partition, partition)
    home = Layout.home(partition)
    columns = [table.column(home, rotated(partition, -step, as_shift=True)) for step in range(parts)]
    total = sum(np.broadcast_to(column.pairs, parts).sum() for column in columns)
    # Where all hold everything, each of the 6 ranks computes the mask in each of the 6 steps.
    assert total == mask.area(seq_len) * (parts * parts if name == "whole" else 1)


@pytest.mark.parametrize(("name", "distinct"), [("contiguous", 3), ("zigzag", 3), ("striped", 2), ("whole", 1)])
def test_a_thousand_ranks_have_few_distinct_lowerings(name: str, distinct: int) -> None:
    parts, seq_len = 1024, 1 << 20
    partition = split(name, seq_len, parts)
    table = LoweringTable(parse_mask("causal", seq_len), seq_len, partition, partition)
    home = Layout.home(partition)
    for step in range(0, parts, 37):
        table.column(home, rotated(partition, -step, as_shift=True))
    assert len(table.lowerings) == distinct


def test_a_column_of_given_lowerings() -> None:
    causal = parse_mask("causal")
    halves = [TokenRange(0, 4)], [TokenRange(4, 8)]
    lowerings = [lower(causal, q, k, 8) for q in halves for k in halves]
    column = column_of(lowerings)
    assert_column(column, lowerings)
    assert len(column.table.lowerings) == 3
    assert_column(column_of(lowerings[:1] * 3), lowerings[:1] * 3)
    assert column_of(lowerings[:1] * 3).pairs == 10


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 6)), max_size=6))
def test_length_of_a_union(slices: list[tuple[int, int]]) -> None:
    bounds = [(start, start + length) for start, length in slices]
    assert len_of_union(bounds) == len({i for start, stop in bounds for i in range(start, stop)})


DOCUMENTS = "document:lengths=40+8+64+16+32+24+56+8+72+16,causal=true"


@pytest.mark.parametrize("text", [DOCUMENTS, "sliding-window:window=9"])
def test_parts_of_many_ranges_are_lowered_once_for_all_that_leave_the_same_cells(text: str) -> None:
    """Documents cut into zigzag chunks of each: few of the pairs of parts differ, and each has what it has alone."""
    seq_len, parts = 336, 4
    mask = parse_mask(text, seq_len)
    documents = parse_mask(DOCUMENTS, seq_len)
    partition = build_partition("document-zigzag", seq_len, parts, documents)
    assert partition.start.shape[1] >= MANY_RANGES
    table = LoweringTable(mask, seq_len, partition, partition)
    for q, k in product(range(parts), range(parts)):
        layouts = Layout.home(partition), rotated(partition, k - q, as_shift=False)
        assert table.column(*layouts).of(q) == lower(mask, partition.ranges(q), partition.ranges(k), seq_len)
    if "document" in text:
        assert len(table.lowerings) < parts**2 / 2

"""What a timeline holds, and every way in which columns are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.traces.strategies import timelines
from tests.traces.synthetic import from_rows, ring_timeline
from traces.errors import InputError
from traces.invariants import COLUMNS, MAX_RANKS
from traces.timeline import OperationInfo, Timeline

INFOS = (
    OperationInfo(0, "attention", "attention_forward", "forward", 0, "compute"),
    OperationInfo(1, "send KV", "exchange", "forward", 0, "communication"),
)
GOOD = {
    "operations": INFOS,
    "lanes": ("compute", "ring"),
    "n_ranks": 2,
    "start_ns": [0, 1],
    "end_ns": [5, 7],
    "rank": [0, 1],
    "lane": [0, 1],
    "operation": [0, 1],
    "bytes": [0, 8],
}

REFUSED = {
    "no ranks": ({"n_ranks": 0}, "number of ranks of a timeline: got 0, expected 1 to"),
    "too many ranks": ({"n_ranks": MAX_RANKS + 1}, "number of ranks"),
    "lanes with one name": ({"lanes": ("ring", "ring")}, "lanes of a timeline share a name: got ring, ring"),
    "fractions": ({"start_ns": [0.5, 1.0]}, "column start_ns has the wrong type: got float64, expected integers"),
    "booleans": ({"bytes": [True, False]}, "column bytes has the wrong type: got bool"),
    "huge numbers": ({"end_ns": [2**70, 7]}, "column end_ns has the wrong type"),
    "beyond int64": ({"end_ns": np.array([2**63 + 9, 7], dtype=np.uint64)}, "impossible"),
    "rank too large": ({"rank": [0, 2]}, "column rank is out of range: got 0 to 2, expected 0 to 1"),
    "rank that would wrap": ({"rank": [0, 2**32]}, "column rank is out of range"),
    "lane too large": ({"lane": [0, 2]}, "column lane is out of range"),
    "negative operation": ({"operation": [0, -1]}, "column operation is out of range"),
    "rows of no lane": ({"lanes": ()}, "column lane is out of range: got 0 to 1, expected no rows"),
    "lengths": ({"bytes": [0]}, "columns differ in shape"),
    "two dimensions": ({name: [[0, 0]] for name in COLUMNS}, "columns differ in shape"),
    "ids": ({"operations": INFOS[::-1]}, "ids do not count from 0: got id 1 at position 0"),
    "ends before it starts": ({"end_ns": [5, 0]}, r"times of operation 1 \(send KV\) on rank 1 .* got 1 to 0 ns"),
    "starts before 0": ({"start_ns": [-1, 1]}, "got -1 to 5 ns, expected 0 <= start"),
    "negative bytes": ({"bytes": [0, -8]}, "bytes is negative: got -8"),
    "two rows": ({"rank": [1, 1], "operation": [1, 1], "lane": [0, 1]}, r"\(send KV\) on rank 1 has several rows"),
    "overlap": ({"rank": [0, 0], "lane": [1, 1]}, r"rows overlap in lane ring: got .* until 5 ns, .* from 1 ns"),
    "provenance of objects": ({"provenance": {"engine": object()}}, "provenance of a timeline is not JSON"),
    "provenance that is no number": ({"provenance": {"error": float("nan")}}, "provenance of a timeline is not JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    changes, message = REFUSED[name]
    Timeline(**GOOD)
    with pytest.raises(InputError, match=message):
        Timeline(**(GOOD | changes))


def test_operation_of_unknown_category_is_refused():
    with pytest.raises(InputError, match="category of operation 3 is unknown: got network, expected one of compute"):
        OperationInfo(3, "send", "exchange", "forward", 0, "network")


@pytest.mark.parametrize(("kind", "phase"), [("a/b", "forward"), ("merge", "for/ward")])
def test_operation_whose_label_would_not_split_is_refused(kind, phase):
    with pytest.raises(InputError, match="names without '/'"):
        OperationInfo(0, "merge", kind, phase, 0, "compute")


def test_rows_may_touch_and_be_empty():
    rows = [(0, 5, 0, 0, 0, 0), (5, 5, 0, 0, 1, 0)]
    assert from_rows(list(INFOS), rows, 1).makespan_ns == 5


def test_columns_are_narrow_and_read_only():
    timeline = ring_timeline(2)
    for name, dtype in COLUMNS.items():
        column = getattr(timeline, name)
        assert column.dtype == np.dtype(dtype)
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1


def test_the_callers_array_stays_the_callers():
    mine = np.array([0, 1], dtype=np.int64)
    timeline = Timeline(**(GOOD | {"start_ns": mine}))
    mine[0] = 4
    assert timeline.start_ns.tolist() == [0, 1]


def test_empty_timeline():
    timeline = from_rows([], [], 3)
    assert (len(timeline), timeline.makespan_ns) == (0, 0)


@settings(max_examples=50)
@given(timelines())
def test_selected_ranks_hold_all_rows(timeline):
    parts = [timeline.select(rank=rank) for rank in range(timeline.n_ranks)]
    assert sum(map(len, parts)) == len(timeline)
    assert max(part.makespan_ns for part in parts) == timeline.makespan_ns
    assert all(set(part.rank.tolist()) <= {rank} for rank, part in enumerate(parts))


def test_selecting_a_rank_that_is_not_there():
    with pytest.raises(InputError, match="no such rank: got 2"):
        ring_timeline(2).select(rank=2)


@settings(max_examples=50)
@given(timelines(), st.randoms(use_true_random=False))
def test_same_in_any_order(timeline, random):
    order = list(range(len(timeline)))
    random.shuffle(order)
    shuffled = replace(timeline, **{name: getattr(timeline, name)[order] for name in COLUMNS})
    assert timeline.same_as(shuffled)
    assert timeline.same_as(replace(timeline, provenance={"engine": "another"}))


DIFFERENT = {
    "ranks": ({"n_ranks": 3}, "n_ranks: 2 against 3"),
    "lanes": ({"lanes": ("compute", "tree")}, r"lanes\[1\]: ring against tree"),
    "more lanes": ({"lanes": ("compute", "ring", "host")}, "2 lanes against 3"),
    "operations": ({"operations": (INFOS[0], replace(INFOS[1], step=4))}, r"operations\[1\]: .*step=4"),
    "end": ({"end_ns": [5, 9]}, r"operation 1 \(send KV\) on rank 1: end_ns 7 against 9"),
    "rank": ({"rank": [0, 0]}, "rank 1 against 0"),
    "bytes": ({"bytes": [3, 8]}, "bytes 0 against 3"),
    "rows": ({name: GOOD[name][:1] for name in COLUMNS}, "2 rows against 1"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_the_first_difference_in_words(name):
    changes, message = DIFFERENT[name]
    sameness = Timeline(**GOOD).same_as(Timeline(**(GOOD | changes)))
    assert not sameness
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(str(sameness))

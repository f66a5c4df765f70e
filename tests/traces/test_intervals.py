"""Interval algebra against sets of nanoseconds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from traces.intervals import Intervals, subtract, unite

PAIRS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)).map(lambda pair: (pair[0], sum(pair))), max_size=12)


def as_intervals(pairs: list[tuple[int, int]]) -> Intervals:
    columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return Intervals(columns[0], columns[1])


def covered(pairs: list[tuple[int, int]]) -> set[int]:
    return {time for start, end in pairs for time in range(start, end)}


def assert_normal_and_equal(result: Intervals, expected: set[int]) -> None:
    """Sorted, not empty, with a gap between each two; and the very nanoseconds."""
    assert np.all(result.end > result.start)
    assert np.all(result.start[1:] > result.end[:-1])
    assert covered(list(zip(*map(np.ndarray.tolist, result), strict=True))) == expected
    assert result.total_ns == len(expected)


@given(PAIRS)
def test_union_covers_the_same_nanoseconds(pairs):
    assert_normal_and_equal(unite(as_intervals(pairs)), covered(pairs))


@given(PAIRS, PAIRS)
def test_difference_is_the_difference_of_the_sets(pairs, removed):
    expected = covered(pairs) - covered(removed)
    assert_normal_and_equal(subtract(as_intervals(pairs), as_intervals(removed)), expected)

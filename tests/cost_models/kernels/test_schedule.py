"""Makespans against list scheduling, block by block."""

import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.kernels.schedule import makespan_s

durations = st.lists(st.integers(1, 20), min_size=1, max_size=12).map(lambda values: np.array(values, dtype=float))


def list_schedule(blocks, slots):
    """Each block goes to the slot that is free first."""
    free = [0.0] * slots
    for block in blocks:
        heapq.heapreplace(free, free[0] + block)
    return max(free)


@given(blocks=durations, copies=st.integers(1, 6), slots=st.integers(1, 9))
def test_waves_bound_the_best_order_from_above_and_the_load_from_below(blocks, copies, slots):
    all_blocks = sorted(np.repeat(blocks, copies), reverse=True)
    waves = makespan_s(blocks, copies, slots, longest_first=False)
    assert waves >= list_schedule(all_blocks, slots) - 1e-9
    assert waves >= sum(all_blocks) / slots - 1e-9
    assert waves <= sum(all_blocks) / slots + all_blocks[0] + 1e-9


@given(blocks=durations, copies=st.integers(1, 6), slots=st.integers(1, 9))
def test_longest_first_is_within_grahams_bound(blocks, copies, slots):
    all_blocks = sorted(np.repeat(blocks, copies), reverse=True)
    estimate, best = makespan_s(blocks, copies, slots, longest_first=True), list_schedule(all_blocks, slots)
    assert estimate <= best + 1e-9
    assert best <= estimate * (4 / 3) + 1e-9


@given(block=st.integers(1, 9), copies=st.integers(1, 50), slots=st.integers(1, 9), first=st.booleans())
def test_equal_blocks_are_exact(block, copies, slots, first):
    estimate = makespan_s(np.array([block], dtype=float), copies, slots, longest_first=first)
    assert estimate == pytest.approx(block * -(-copies // slots))


def test_nothing_takes_no_time():
    assert makespan_s(np.zeros(0), 4, 4, longest_first=False) == 0.0

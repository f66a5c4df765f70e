"""Blocks dispatched in order: against a plain simulation of every multiprocessor, and against bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.kernels import schedule
from cost_models.kernels.schedule import dispatch_in_order, makespan_in_order_s, rate_with


def plain_makespan(durations: np.ndarray, copies: int, places: int) -> float:
    free = [0.0] * places
    for seconds in list(durations) * copies:
        place = free.index(min(free))
        free[place] += seconds
    return max(free)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=9), st.integers(1, 5), st.integers(1, 7))
@settings(max_examples=60)
def test_one_block_per_multiprocessor_is_list_scheduling(durations: list[float], copies: int, places: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "SIMULATED_WAVES", 10_000)
        got = dispatch_in_order(np.array(durations), copies, places, 1)
    assert got.makespan_s == pytest.approx(plain_makespan(np.array(durations), copies, places))


@given(st.integers(1, 40), st.integers(1, 30), st.sampled_from([1, 2, 3]), st.floats(0.3, 1.0))
@settings(max_examples=25)
def test_bounds(distinct: int, copies: int, most: int, alone: float) -> None:
    durations, places = np.linspace(1, 2, distinct), 10
    got = dispatch_in_order(durations, copies, places, most, alone)
    load = float(durations.sum()) * copies / places
    assert got.makespan_s >= 0.95 * load
    assert got.makespan_s <= 1.05 * (load + 2 * most) / rate_with(1, most, alone)
    assert got.shares.sum() == pytest.approx(1.0, abs=schedule.JITTER)


def test_many_blocks_are_as_if_all_were_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    durations = np.linspace(1, 3, 37)
    short = dispatch_in_order(durations, 100, 20, 1).makespan_s
    monkeypatch.setattr(schedule, "SIMULATED_WAVES", 10_000)
    assert short == pytest.approx(dispatch_in_order(durations, 100, 20, 1).makespan_s, rel=5e-3)


def test_a_block_alone_runs_slower_than_its_share_of_a_full_multiprocessor() -> None:
    one = np.array([1.0])
    alone = dispatch_in_order(one, 4, 4, 2, 0.5).makespan_s
    both = dispatch_in_order(one, 8, 4, 2, 0.5).makespan_s
    # Of two, the elder ends when the other has 1 - 0.4 / 0.6 left, which it does alone.
    assert alone == pytest.approx(1.5, rel=0.03) and both == pytest.approx((1 / 0.6 + 1.5 / 3), rel=0.03)
    assert rate_with(3, 3, 0.4) == 1.0 and rate_with(1, 3, 0.4) < rate_with(2, 3, 0.4) < 1


def test_blocks_of_a_last_wave_go_to_different_multiprocessors() -> None:
    """384 blocks in 2 x 132 places of an H100 take 1.58 to 1.6 times as long as 264 (flash2, full attention)."""
    one = np.array([1.0])
    most, all_ = (dispatch_in_order(one, copies, 132, 2, 0.7).makespan_s for copies in (264, 384))
    assert 1.5 < all_ / most < 1.65


def test_what_the_slowest_multiprocessor_ran() -> None:
    got = dispatch_in_order(np.array([1.0, 5.0]), 2, 2, 1)
    assert got.makespan_s == 7.0 and got.pieces.tolist() == [2.0, 1.0] and got.skipped.tolist() == [0.0, 0.0]


@given(st.lists(st.sampled_from([0.5, 1.0, 3.3]), min_size=1, max_size=40), st.integers(1, 60), st.integers(1, 9))
@settings(max_examples=60)
def test_the_makespan_alone_is_the_dispatchs(durations: list[float], copies: int, places: int) -> None:
    given_s = np.array(durations)
    for most, alone in ((1, 1.0), (2, 0.6)):
        got = makespan_in_order_s(given_s, copies, places, most, alone)
        assert got == pytest.approx(dispatch_in_order(given_s, copies, places, most, alone).makespan_s, rel=1e-12)

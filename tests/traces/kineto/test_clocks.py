"""Clocks: known offsets are found again, causality bounds hold, and what cannot be known is said."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from traces.kineto.clocks import Span, align_clocks

OFFSETS = st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=5)


@settings(max_examples=100)
@given(offsets=OFFSETS, seed=st.integers(0, 1000))
def test_offsets_are_found_to_the_spread_of_the_ends(offsets, seed):
    rng = np.random.default_rng(seed)
    begun, ends = rng.integers(0, 10**9, 20), []
    for offset in offsets:
        start = begun + rng.integers(0, 50_000, 20)
        end = begun + 100_000 + rng.integers(0, 500, 20)
        ends.append(
            {i: Span(int(a) - offset, int(b) - offset) for i, (a, b) in enumerate(zip(start, end, strict=True))}
        )
    found = align_clocks(ends, [""] * len(offsets)).offset_ns
    assert np.abs(found - (np.array(offsets) - offsets[0])).max() <= 500


def test_nothing_ends_before_it_has_begun_elsewhere():
    """The median of the ends alone would say 0; one collective shows that rank 1 is late by 40 at least."""
    near = {"a": Span(0, 100), "b": Span(200, 300), "c": Span(400, 500), "d": Span(640, 700)}
    far = {"a": Span(0, 100), "b": Span(200, 300), "c": Span(400, 500), "d": Span(550, 600)}
    clocks = align_clocks([near, far], ["", ""])
    assert clocks.offset_ns.tolist() == [0, 40]
    assert not clocks.warnings


def test_one_host_has_one_clock_unless_that_is_impossible():
    near, far = {"a": Span(0, 100)}, {"a": Span(50, 90)}
    assert align_clocks([near, far], ["vm", "vm"]).offset_ns.tolist() == [0, 0]
    assert align_clocks([near, far], ["vm", "other"]).offset_ns.tolist() == [0, 10]
    assert align_clocks([near, {"a": Span(150, 190)}], ["vm", "vm"]).offset_ns.tolist() == [0, -90]


def test_clocks_are_chained_through_whoever_shares():
    spans = [{"a": Span(0, 10)}, {"a": Span(100, 110), "b": Span(150, 160)}, {"b": Span(1000, 1010)}]
    assert align_clocks(spans, ["", "", ""]).offset_ns.tolist() == [0, -100, -950]


def test_drift_is_said():
    near = {i: Span(i * 1000, i * 1000 + 10) for i in range(5)}
    far = {i: Span(i * 1100, i * 1100 + 10) for i in range(5)}
    assert "ranks 0 and 1 drift" in align_clocks([near, far], ["", ""]).warnings[0]


def test_a_rank_that_shares_nothing_is_said():
    clocks = align_clocks([{"a": Span(0, 1)}, {"b": Span(5, 6)}], ["", ""])
    assert clocks.offset_ns.tolist() == [0, 0]
    assert "rank 1 shares no communication" in clocks.warnings[0]

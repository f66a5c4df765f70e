"""Merging keeps every total and the limit; choosing keeps the critical rank."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.traces.strategies import timelines
from tests.traces.synthetic import from_rows, ring_timeline
from traces.errors import InputError
from traces.figures.ranks import MAX_TRACKS, choose_ranks
from traces.figures.thinning import Bars, thin
from traces.figures.tracks import EXPOSED_KIND, lay_out
from traces.metrics import critical_rank, exposed_communication_ns
from traces.timeline import OperationInfo, Timeline


def totals(bars: Bars) -> dict[tuple[int, int], tuple[int, int, int]]:
    """Time, bytes and rows of each (track, kind)."""
    sums: dict[tuple[int, int], list[int]] = {}
    columns = (bars.track, bars.kind, bars.start_ns, bars.end_ns, bars.bytes, bars.rows)
    for track, kind, start, end, n_bytes, rows in zip(*(column.tolist() for column in columns), strict=True):
        total = sums.setdefault((track, kind), [0, 0, 0])
        for i, value in enumerate((end - start, n_bytes, rows)):
            total[i] += value
    return {key: (total[0], total[1], total[2]) for key, total in sums.items()}


def fewest(bars: Bars) -> int:
    return len(totals(bars))


def assert_tracks_do_not_overlap(bars: Bars) -> None:
    """A row without length may lie within another bar."""
    bars = Bars(*(column[bars.end_ns > bars.start_ns] for column in bars))
    order = np.lexsort((bars.end_ns, bars.start_ns, bars.track))
    track, start, end = bars.track[order], bars.start_ns[order], bars.end_ns[order]
    assert np.all((track[1:] != track[:-1]) | (start[1:] >= end[:-1]))


@settings(max_examples=60)
@given(timelines(max_operations=14), st.integers(0, 25))
def test_merging_keeps_totals_order_and_limit(timeline, extra):
    bars = lay_out(timeline, range(timeline.n_ranks)).bars
    max_bars = fewest(bars) + extra
    merged, cell_ns = thin(bars, max_bars, timeline.makespan_ns)
    assert len(merged.track) <= max_bars
    assert totals(merged) == totals(bars)
    assert_tracks_do_not_overlap(merged)
    assert merged.end_ns.max(initial=0) <= timeline.makespan_ns
    assert (cell_ns == 0) == (len(bars.track) <= max_bars)


@settings(max_examples=60)
@given(timelines(max_operations=14), st.integers(0, 25))
def test_a_bar_is_at_most_a_cell_from_its_rows(timeline, extra):
    bars = lay_out(timeline, range(timeline.n_ranks)).bars
    merged, cell_ns = thin(bars, fewest(bars) + extra, timeline.makespan_ns)
    for row, start in zip(merged.row.tolist(), merged.start_ns.tolist(), strict=True):
        if row >= 0:
            assert abs(int(timeline.start_ns[row]) - start) <= cell_ns


def test_long_rows_keep_their_place():
    """A long row between short ones of its kind is not drawn as one with them, which would push the others away."""
    lengths = [1, 1, 6, 92, 1, 1, 1, 1, 24]
    ends = np.cumsum(lengths).tolist()
    infos = [OperationInfo(i, "op", ("gemm", "merge")[i % 2], "forward", 0, "compute") for i in range(9)]
    timeline = from_rows(
        infos, [(end - length, end, 0, 0, i, 0) for i, (length, end) in enumerate(zip(lengths, ends, strict=True))], 1
    )
    merged, cell_ns = thin(lay_out(timeline, [0]).bars, 8, timeline.makespan_ns)
    assert cell_ns == 4
    assert merged.start_ns.tolist() == [0, 1, 2, 8, 100, 102, 104]
    assert merged.rows.tolist() == [1, 1, 1, 1, 2, 2, 1]


def test_little_enough_is_left_as_it_is():
    bars = lay_out(ring_timeline(4), range(4)).bars
    assert thin(bars, len(bars.track), 1)[0] is bars


def test_as_many_bars_as_allowed_within_a_factor():
    """The finest level: twice as fine would be too many, so most of the room is used."""
    timeline = ring_timeline(16)
    bars = lay_out(timeline, range(16)).bars
    counts = [len(thin(bars, limit, timeline.makespan_ns)[0].track) for limit in (200, 400, 800, 1600)]
    assert all(count > limit / 3 for count, limit in zip(counts, (200, 400, 800, 1600), strict=True))


@settings(max_examples=60)
@given(timelines())
def test_layout_has_every_row_once_and_the_exposed_time_that_is_free(timeline):
    chart = lay_out(timeline, range(timeline.n_ranks))
    shading = chart.bars.kind == len(chart.kinds) - 1
    assert sorted(chart.bars.row[~shading].tolist()) == list(range(len(timeline)))
    assert chart.kinds[-1] == EXPOSED_KIND
    assert_tracks_do_not_overlap(chart.bars)
    shaded = Counter()
    for track, start, end in zip(
        *(column[shading].tolist() for column in chart.bars[:1] + chart.bars[2:4]), strict=True
    ):
        shaded[chart.tracks[track].rank] += end - start
    assert all(shaded[rank] <= exposed_communication_ns(timeline, rank) for rank in range(timeline.n_ranks))


def test_all_exposed_time_is_shaded_on_the_compute_track():
    timeline = ring_timeline(6)
    chart = lay_out(timeline, range(6))
    shading = chart.bars.kind == len(chart.kinds) - 1
    for number, track in enumerate(chart.tracks):
        mine = shading & (chart.bars.track == number)
        length = int((chart.bars.end_ns - chart.bars.start_ns)[mine].sum())
        expected = exposed_communication_ns(timeline, track.rank) if timeline.lanes[track.lane] == "compute" else 0
        assert length == expected


def late_rank(n_ranks: int, late: int) -> Timeline:
    infos = [OperationInfo(0, "attention", "attention_forward", "forward", 0, "compute")]
    return from_rows(infos, [(0, 9 if rank == late else 5, rank, 0, 0, 0) for rank in range(n_ranks)], n_ranks)


@given(st.integers(1, 300), st.data())
def test_chosen_ranks_hold_the_critical_one_and_are_few(n_ranks, data):
    timeline = late_rank(n_ranks, data.draw(st.integers(0, n_ranks - 1)))
    max_bars = data.draw(st.integers(2, 700))
    chosen = choose_ranks(timeline, None, max_bars)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(n_ranks, max_bars // 2, MAX_TRACKS)
    assert critical_rank(timeline) in chosen
    if len(chosen) > 2:
        assert {0, n_ranks - 1} <= set(chosen)


def test_ranks_that_are_asked_for_are_all_shown():
    timeline = ring_timeline(64)
    assert choose_ranks(timeline, range(64), 10_000) == list(range(64))
    assert choose_ranks(timeline, [5, 3, 5], 10_000) == [3, 5]


@pytest.mark.parametrize("ranks", [[], [-1], [0, 2]])
def test_ranks_that_are_not_there(ranks):
    with pytest.raises(InputError, match="ranks to draw: got .*, expected some of 0 to 1"):
        choose_ranks(ring_timeline(2), ranks, 10_000)


def test_too_few_bars_for_a_single_rank():
    """Attention forward and backward, merge, exchange, launch, and the shading."""
    with pytest.raises(InputError, match="max_bars is too small for a single rank: got 5, expected at least 6"):
        choose_ranks(ring_timeline(2), None, 5)
    assert choose_ranks(ring_timeline(2), [0], 6) == [0]

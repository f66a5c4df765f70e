"""The Gantt chart shows every row where and as long as it ran, and says what it leaves out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings

from tests.traces.strategies import timelines
from tests.traces.synthetic import from_rows, ring_timeline
from traces.errors import InputError
from traces.figures.colours import EXPOSED, colour_of
from traces.figures.timeline import plot_timeline
from traces.metrics import exposed_communication_ns
from traces.timeline import OperationInfo, Timeline

UNIT_NS = {"ns": 1.0, "µs": 1e3, "ms": 1e6, "s": 1e9}


def bars(figure: go.Figure) -> int:
    return sum(len(trace.x) for trace in figure.data)


def note(figure: go.Figure) -> str:
    return figure.layout.title.subtitle.text.replace("<br>", " ")


def unit_ns(figure: go.Figure) -> float:
    return UNIT_NS[figure.layout.xaxis.title.text.removeprefix("time (").removesuffix(")")]


def needed(timeline: Timeline) -> int:
    kinds = [(info.category, info.kind) for info in timeline.operations]
    return 1 + len({(int(lane), kinds[op]) for lane, op in zip(timeline.lane, timeline.operation, strict=True)})


@settings(max_examples=15)
@given(timelines())
def test_busy_time_of_each_kind_is_drawn_whatever_the_limit(timeline):
    expected: dict[tuple[str, str], int] = {}
    for operation, start, end in zip(timeline.operation, timeline.start_ns, timeline.end_ns, strict=True):
        info = timeline.operations[operation]
        key = (info.category, info.kind)
        expected[key] = expected.get(key, 0) + int(end - start)
    for max_bars in (10_000, needed(timeline) * timeline.n_ranks):
        figure = plot_timeline(timeline, max_bars=max_bars)
        assert bars(figure) <= max_bars
        drawn = {(t.meta["category"], t.meta["kind"]): sum(t.x) * unit_ns(figure) for t in figure.data}
        drawn.pop(("exposed", "communication"), None)
        assert drawn == pytest.approx(expected)


def test_each_kind_has_a_legend_entry_and_its_colour():
    figure = plot_timeline(ring_timeline(2))
    shown = {trace.name: trace.marker.color for trace in figure.data}
    assert shown == {
        "exposed communication": EXPOSED,
        "launch": colour_of("launch", "host"),
        "exchange": colour_of("exchange", "communication"),
        "attention forward": colour_of("attention_forward", "compute"),
        "merge": colour_of("merge", "compute"),
        "attention backward": colour_of("attention_backward", "compute"),
    }


def test_tracks_by_rank_and_lane():
    figure = plot_timeline(ring_timeline(3), ranks=[2, 0])
    assert list(figure.layout.yaxis.ticktext) == [
        "<b>rank 0</b>  compute", "comm:ring", "host", "<b>rank 2</b>  compute", "comm:ring", "host"]  # fmt: skip
    assert sorted(figure.layout.yaxis.tickvals) == list(figure.layout.yaxis.tickvals)
    assert {y for trace in figure.data for y in trace.y} <= set(figure.layout.yaxis.tickvals)


def test_exposed_communication_is_shaded():
    timeline = ring_timeline(2)
    figure = plot_timeline(timeline)
    shading = next(trace for trace in figure.data if trace.name == "exposed communication")
    expected = sum(exposed_communication_ns(timeline, rank) for rank in range(2))
    assert sum(shading.x) * unit_ns(figure) == pytest.approx(expected)


def test_hover_says_what_where_when_and_how_much():
    figure = plot_timeline(ring_timeline(2))
    exchange = next(trace for trace in figure.data if trace.name == "exchange")
    assert exchange.hovertext[1] == "<b>exchange 0</b><br>rank 1, step 0, forward<br>4.62 ms from 0 ns<br>64 MiB"


def test_thinned_figure_says_so():
    timeline = ring_timeline(16)
    figure = plot_timeline(timeline, max_bars=300)
    assert bars(figure) <= 300
    assert f"bars are merged into {bars(figure)}: neighbours of a kind within" in note(figure)
    assert "holds everything" in note(figure)
    merged = next(trace for trace in figure.data if trace.name == "merge")
    assert any("× merge" in text for text in merged.hovertext)


def test_many_ranks_are_chosen_and_said():
    assert "Showing 21 of 100 ranks (first, critical, last and between)." in note(plot_timeline(late(100)))
    assert "Showing" not in note(plot_timeline(late(100), ranks=range(100)))


def late(n_ranks: int) -> Timeline:
    infos = [OperationInfo(i, "attention", "attention_forward", "forward", 0, "compute") for i in range(3)]
    return from_rows(infos, [(0, 5, rank, lane, lane, 0) for rank in range(n_ranks) for lane in range(3)], n_ranks)


def test_everything_shown_says_nothing_of_thinning():
    assert note(plot_timeline(ring_timeline(2))) == "Critical rank 1 finishes at 28 ms."


def test_axis_has_its_unit_and_holds_the_makespan():
    timeline = ring_timeline(2)
    axis = plot_timeline(timeline).layout.xaxis
    assert axis.title.text == "time (ms)"
    assert np.allclose(axis.range, [0, timeline.makespan_ns / 1e6])


def test_timeline_without_rows():
    figure = plot_timeline(from_rows([], [], 2))
    assert bars(figure) == 0


def test_names_are_text():
    infos = [OperationInfo(0, "a<b>c", "k<i>", "p<u>", 0, "compute")]
    figure = plot_timeline(from_rows(infos, [(0, 1, 0, 0, 0, 0)], 1, ("l<s>",)))
    assert figure.data[0].name == "k&lt;i&gt;"
    assert figure.data[0].hovertext[0].startswith("<b>a&lt;b&gt;c</b><br>rank 0, step 0, p&lt;u&gt;")
    assert figure.layout.yaxis.ticktext[0] == "<b>rank 0</b>  l&lt;s&gt;"


def test_rank_that_is_not_there():
    with pytest.raises(InputError, match="ranks to draw"):
        plot_timeline(ring_timeline(2), ranks=[7])


def test_of_each_rank_the_lane_that_computes_comes_first():
    timeline = ring_timeline(3)
    turned = replace(timeline, lanes=timeline.lanes[::-1], lane=len(timeline.lanes) - 1 - timeline.lane)
    labels = plot_timeline(turned).layout.yaxis.ticktext
    firsts = [label for label in labels if "<b>rank" in label]
    assert len(firsts) == 3 and all("compute" in label for label in firsts)

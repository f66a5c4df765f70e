"""Breakdown, ranking and memory: lengths are the numbers given, with units, labels and legends."""

from __future__ import annotations

import plotly.graph_objects as go
import pytest
from hypothesis import given, settings

from tests.traces.strategies import timelines
from tests.traces.synthetic import ring_timeline
from traces.figures.breakdown import plot_breakdown
from traces.figures.memory import plot_memory
from traces.figures.ranking import plot_ranking
from traces.metrics import breakdown, critical_rank

UNIT_NS = {"ns": 1.0, "µs": 1e3, "ms": 1e6, "s": 1e9}
GIB = 1 << 30


def unit_ns(figure: go.Figure) -> float:
    return UNIT_NS[figure.layout.xaxis.title.text.removeprefix("time (").removesuffix(")")]


def result(schedule: str, time_s: float, **changes: object) -> dict[str, object]:
    likely = {"low_s": time_s * 0.9, "high_s": time_s * 1.2, "level": 0.9, "extrapolated": False}
    return {"schedule": schedule, "time_s": time_s, "exact": True, "fits": True, "uncertainty": likely} | changes


@settings(max_examples=15)
@given(timelines(), timelines())
def test_stacked_bars_are_as_long_as_the_makespans(first, second):
    both = (first, second)
    figure = plot_breakdown([{"schedule": "s", "parts": breakdown(t, critical_rank(t))} for t in both])
    lengths = [sum(trace.x[i] for trace in figure.data) * unit_ns(figure) for i in range(2)]
    assert lengths == pytest.approx([t.makespan_ns for t in both])
    assert figure.layout.barmode == "stack"
    assert figure.layout.xaxis.range[1] * unit_ns(figure) > max(lengths)


def test_breakdown_of_a_ring():
    timeline = ring_timeline(2)
    parts = breakdown(timeline, 1)
    figure = plot_breakdown([{"schedule": "ring:grad=fp32", "parts": parts}])
    assert [trace.name for trace in figure.data] == [
        "attention forward",
        "merge",
        "attention backward",
        "exposed exchange",
    ]
    exposed = figure.data[-1]
    assert exposed.x[0] * 1e6 == pytest.approx(
        parts["communication/exchange/forward"] + parts["communication/exchange/backward"]
    )
    assert exposed.hovertext[0] == "<b>exposed exchange</b><br>3.92 ms (14.0%)<br>forward 1.15 ms<br>backward 2.76 ms"
    assert (exposed.text[0], figure.data[1].text[0]) == ("14%", "")
    assert figure.layout.yaxis.ticktext == ("ring<br>grad=fp32",)
    assert figure.layout.annotations[0].text == "28 ms"


def test_idle_is_last_and_parts_that_are_nothing_are_left_out():
    figure = plot_breakdown([
        {"schedule": "a", "parts": {"compute/merge/forward": 0, "idle": 5}},
        {"schedule": "b", "parts": {"communication/exchange/forward": 7, "compute/gemm/forward": 1, "idle": 0}},
    ])  # fmt: skip
    assert [trace.name for trace in figure.data] == ["matrix products", "exposed exchange", "idle"]
    assert [list(trace.x) for trace in figure.data] == [[0, 1], [0, 7], [5, 0]]


@pytest.mark.parametrize("parts", [{}, {"idle": 0}])
def test_breakdown_of_nothing(parts):
    assert len(plot_breakdown([{"schedule": "a", "parts": parts}]).data) == 0
    assert len(plot_breakdown([]).data) == 0


def test_ranking_has_a_group_each_with_its_whiskers():
    rows = [
        result("ring", 0.020),
        result("usp:ulysses=4,ring=2", 0.030, fits=False),
        result("apb", 0.006, exact=False),
        {"schedule": "tp", "reason": "3 heads on 2 GPUs"},
    ]
    figure = plot_ranking(rows)
    assert [trace.name for trace in figure.data] == ["exact", "exact, does not fit in memory", "approximate"]
    assert [list(trace.y) for trace in figure.data] == [[0], [1], [2]]
    assert [trace.x[0] for trace in figure.data] == pytest.approx([20, 30, 6])
    assert [trace.error_x.array[0] for trace in figure.data] == pytest.approx([4, 6, 1.2])
    assert [trace.error_x.arrayminus[0] for trace in figure.data] == pytest.approx([2, 3, 0.6])
    assert [trace.marker.pattern.shape for trace in figure.data] == ["", "/", ""]
    texts = [annotation.text for annotation in figure.layout.annotations]
    assert texts == ["20 ms", "30 ms", "6 ms", "<i>refused: 3 heads on 2 GPUs</i>"]
    assert figure.layout.annotations[0].x == pytest.approx(24)
    assert figure.layout.yaxis.ticktext[1] == "usp<br>ulysses=4, ring=2"
    assert figure.data[0].hovertext[0] == "<b>20 ms</b>, exact<br>18 ms to 24 ms (90%)"
    assert "whisker" in figure.layout.title.subtitle.text


def test_extrapolation_is_said():
    likely = {"low_s": 0.01, "high_s": 0.05, "level": 0.9, "extrapolated": True}
    figure = plot_ranking([result("ring", 0.02, uncertainty=likely)])
    assert figure.data[0].hovertext[0].endswith("(90%), beyond what was calibrated")


def test_time_outside_its_interval_has_no_negative_whisker():
    intervals = ({"low_s": 0.021, "high_s": 0.03}, {"low_s": 0.01, "high_s": 0.019})
    above, below = (plot_ranking([result("ring", 0.02, uncertainty=each)]).data[0].error_x for each in intervals)
    assert (above.arrayminus[0], below.array[0]) == (0, 0)


def test_ranking_without_uncertainty():
    figure = plot_ranking([{"schedule": "ring", "time_s": 0.02}])
    assert figure.data[0].error_x.array[0] == 0
    assert figure.layout.title.subtitle.text == "Time of one call."


def test_long_reasons_are_cut_and_names_are_text():
    figure = plot_ranking([{"schedule": "x<i>:a=<b>", "reason": "<u>" + "word " * 40}])
    assert figure.layout.yaxis.ticktext[0] == "x&lt;i&gt;<br>a=&lt;b&gt;"
    text = figure.layout.annotations[0].text
    assert text.startswith("<i>refused: &lt;u&gt;word")
    assert text.endswith("…</i>")
    assert len(text) < 100


def test_memory_steps_at_each_operation():
    figure = plot_memory([("alloc", GIB), ("attention", 3 * GIB), ("free", 2 * GIB)])
    curve = figure.data[0]
    assert list(curve.x) == [0, 1, 2, 3]
    assert list(curve.y) == [1, 3, 2, 2]
    assert curve.line.shape == "hv"
    assert curve.hovertext[1] == "<b>attention</b><br>3 GiB"
    assert figure.layout.yaxis.title.text == "in use (GiB)"
    assert figure.layout.title.subtitle.text == "Peak 3 GiB, at attention."


def test_limit_of_the_device_is_drawn_where_it_is_near():
    near = plot_memory([("a", 60 * GIB)], 80 * GIB)
    assert near.layout.shapes[0].y0 == 80
    assert near.layout.annotations[0].text == "device 80 GiB"
    far = plot_memory([("a", GIB)], 80 * GIB)
    assert len(far.layout.shapes) == 0
    assert far.layout.title.subtitle.text == "Peak 1 GiB of 80 GiB, at a."


def test_limit_that_is_exceeded_is_drawn_below_the_peak():
    figure = plot_memory([("a", 100 * GIB)], 80 * GIB)
    assert figure.layout.shapes[0].y0 == 80
    assert figure.data[0].y[0] == 100


def test_memory_of_nothing():
    assert plot_memory([]).layout.title.subtitle.text == "No operation allocates memory."


def test_times_that_cannot_be_told_apart_are_said_to_be_alike():
    rows = [{"schedule": name, "time_s": time} for name, time in (("a", 1.0), ("b", 1.01), ("c", 1.1))]
    assert "2 exact ones are within 2%" in plot_ranking(rows).layout.title.subtitle.text.replace("<br>", " ")
    assert "within" not in plot_ranking(rows[1:]).layout.title.subtitle.text

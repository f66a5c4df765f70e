"""Crossover map, scaling curves, Pareto front and waterfall: they say what the rows say."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.traces.strategies import timelines
from tests.traces.synthetic import ring_timeline
from traces.figures.colours import colour_of
from traces.figures.crossover import NOBODY, plot_crossover
from traces.figures.palette import SCHEDULES, look_of, looks_of
from traces.figures.pareto import plot_pareto
from traces.figures.scaling import plot_scaling
from traces.figures.waterfall import plot_waterfall
from traces.metrics import breakdown, critical_rank

GIB = 1 << 30


def row(schedule: str, seq_len: int, factor: float, time_s: float | None, fits: bool = True) -> dict[str, object]:
    return {"schedule": schedule, "seq_len": seq_len, "factor": factor, "time_s": time_s, "fits": fits}


CROSSING = [
    row("ring", 65536, 0.5, 2.0), row("ulysses", 65536, 0.5, 3.0),
    row("ring", 65536, 2.0, 2.0), row("ulysses", 65536, 2.0, 1.0),
    row("ring", 1 << 20, 0.5, 9.0, fits=False), row("ulysses", 1 << 20, 0.5, None),
    row("ring", 1 << 20, 2.0, 9.0), row("ulysses", 1 << 20, 2.0, 8.0, fits=False),
]  # fmt: skip


def test_crossover_cells_are_the_winners_that_fit():
    heat = plot_crossover(CROSSING, "network").data[0]
    names = heat.meta["names"]
    assert [list(line) for line in heat.text] == [["ring", ""], ["ulysses", "ring"]]
    assert [[names[number] for number in line] for line in heat.z] == [["ring", ""], ["ulysses", "ring"]]
    assert (list(heat.x), list(heat.y)) == (["64k", "1M"], ["0.5×", "2×"])
    assert heat.hovertext[1][1] == "<b>1M tokens, 2x</b><br>ulysses 8 s (does not fit)<br>ring 9 s"


def test_crossover_colours_are_plain_and_those_of_the_legend():
    figure = plot_crossover(CROSSING)
    heat, *legend = figure.data
    colours = {trace.name: trace.marker.color for trace in legend}
    assert colours == {"ring": SCHEDULES["ring"], "ulysses": SCHEDULES["ulysses"], "nothing fits": NOBODY}
    spread = heat.zmax - heat.zmin
    for number, name in enumerate(heat.meta["names"]):
        share = (number - heat.zmin) / spread
        below = [colour for position, colour in heat.colorscale if position <= share]
        above = [colour for position, colour in heat.colorscale if position >= share]
        assert below[-1] == above[0] == colours[name or "nothing fits"]


def test_crossover_without_a_crossing_or_a_winner_says_so():
    assert "everywhere" in plot_crossover([row("ring", 1024, 1, 1.0)]).layout.title.subtitle.text
    assert "Nothing fits" in plot_crossover([row("ring", 1024, 1, None)]).layout.title.subtitle.text


def scaled(schedule: str, gpus: int, time_s: float | None, fits: bool = True) -> dict[str, object]:
    return {"schedule": schedule, "gpus": gpus, "time_s": time_s, "fits": fits, "peak_memory_bytes": GIB}


def test_scaling_is_a_line_per_schedule_beside_the_perfect_one():
    rows = [
        scaled("ring", 8, 0.006),
        scaled("ring", 2, 0.020, fits=False),
        scaled("tp", 2, 0.030),
        scaled("tp", 8, None),
    ]
    figure = plot_scaling(rows)
    ring, tp, perfect = figure.data
    assert (list(ring.x), list(ring.y)) == ([2, 8], pytest.approx([20, 6]))
    assert (list(tp.x), perfect.name, list(perfect.y)) == ([2], "perfect scaling", pytest.approx([20, 5]))
    assert [symbol.endswith("-open") for symbol in ring.marker.symbol] == [True, False]
    assert "1 points cannot run" in figure.layout.title.subtitle.text
    assert figure.layout.yaxis.title.text == "time (ms)"
    assert "peak memory 1 GiB, does not fit" in ring.hovertext[0]


def test_scaling_over_lengths_has_no_perfect_line():
    figure = plot_scaling([scaled("ring", 8, 1.0) | {"seq_len": n} for n in (1024, 4096)], "seq_len")
    assert len(figure.data) == 1
    assert figure.layout.xaxis.ticktext == ("1k", "4k")


def test_pareto_front_is_marked_and_drawn_in_order():
    rows = [
        {"schedule": "ring", "time_s": 0.002, "peak_memory_bytes": GIB},
        {"schedule": "ring", "time_s": 0.003, "peak_memory_bytes": 3 * GIB, "candidate": "ring tp=2"},
        {"schedule": "tp", "time_s": 0.001, "peak_memory_bytes": 2 * GIB},
    ]
    figure = plot_pareto(rows, [0, 2], capacity_bytes=3 * GIB)
    line, ring, tp = figure.data
    assert (list(line.x), list(line.y)) == (pytest.approx([1, 2]), pytest.approx([2, 1]))
    assert ring.marker.size[0] > ring.marker.size[1] and tp.marker.size[0] == ring.marker.size[0]
    assert ring.hovertext[1] == "<b>ring tp=2</b><br>3 ms, 3 GiB"
    assert figure.layout.annotations[0].text == "device 3 GiB"


@settings(max_examples=15)
@given(timelines())
def test_waterfall_ends_at_the_makespan(timeline):
    *steps, total = plot_waterfall(breakdown(timeline, critical_rank(timeline))).data
    ends = [0.0]
    for step in steps:
        assert step.base[0] == pytest.approx(ends[-1])
        ends.append(step.base[0] + step.x[0])
    assert ends[-1] == pytest.approx(total.x[0])


def test_waterfall_of_a_ring():
    figure = plot_waterfall(breakdown(ring_timeline(2), 1))
    assert [trace.name for trace in figure.data] == [
        "attention forward", "merge, forward", "attention backward", "merge, backward",
        "exposed exchange, forward", "exposed exchange, backward", "total",
    ]  # fmt: skip
    assert figure.data[4].marker.color == colour_of("exchange", "communication")
    assert figure.layout.annotations[-1].text == "<b>28 ms</b>"


def test_waterfall_of_nothing():
    assert [trace.name for trace in plot_waterfall({"idle": 0}).data] == ["total"]


def test_schedules_have_looks_of_their_own():
    assert len(set(SCHEDULES.values())) == len(SCHEDULES)
    first, second = looks_of(["burst", "burst:ring=flat"]).values()
    assert first.colour == second.colour and (first.symbol, first.dash) != (second.symbol, second.dash)
    assert look_of("unheard-of") == look_of("unheard-of")


def test_a_wide_range_is_drawn_on_a_logarithmic_axis():
    rows = [{"schedule": name, "time_s": time, "peak_memory_bytes": 2**30} for name, time in (("a", 1.0), ("b", 50.0))]
    figure = plot_pareto(rows, [0])
    assert figure.layout.xaxis.type == "log" and figure.layout.yaxis.rangemode == "tozero"

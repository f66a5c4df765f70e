"""Roofline and holders of memory: points where the numbers say, small ones put together, text that is no markup."""

from __future__ import annotations

import pytest

from traces.figures.holders import LISTED, plot_holders
from traces.figures.roofline import EDGE, plot_roofline

PEAK, MEMORY = 1e15, 2e12
KERNELS = [
    {"kind": "attention_forward", "phase": "forward", "flop": 8e12, "bytes": 1e9, "time_ns": 10_000_000, "count": 3},
    {"kind": "cast", "phase": "forward", "flop": 0, "bytes": 1e9, "time_ns": 1_000_000, "count": 1},
    {"kind": "linear", "phase": "backward", "flop": 1e12, "bytes": 1e10, "time_ns": 10_000_000, "count": 1},
]


def test_kernels_lie_at_their_intensity_and_rate():
    figure = plot_roofline(KERNELS, PEAK, MEMORY)
    points = {trace.name: trace for trace in figure.data}
    attention, product = points["attention forward"], points["matrix products, backward"]
    assert (attention.x[0], attention.y[0]) == (8000, pytest.approx(800))
    assert (product.x[0], product.y[0]) == (100, pytest.approx(100))
    assert "× 3" in attention.hovertext[0] and "800 TFLOP/s" in attention.hovertext[0]
    assert attention.marker.size[0] > product.marker.size[0]


def test_ceilings_meet_at_the_ridge():
    ceiling = plot_roofline(KERNELS, PEAK, MEMORY).data[0]
    assert (ceiling.x[1], ceiling.y[1]) == (PEAK / MEMORY, 1000)
    assert ceiling.y[0] / ceiling.x[0] == pytest.approx(MEMORY / 1e12)


def test_without_products_the_distance_to_the_slope_is_that_of_the_bandwidth():
    """1e9 bytes in 1 ms are half of 2 TB/s."""
    figure = plot_roofline(KERNELS, PEAK, MEMORY)
    cast = next(trace for trace in figure.data if trace.name == "packing and reordering, forward")
    assert cast.x[0] == pytest.approx(100 / EDGE)
    assert cast.y[0] / (cast.x[0] * MEMORY / 1e12) == pytest.approx(0.5)


def test_kernels_too_small_to_see_are_left_out_and_that_is_said():
    tiny = {**KERNELS[1], "kind": "row_dot", "time_ns": 10}
    figure = plot_roofline([*KERNELS, tiny], PEAK, MEMORY)
    assert not any("row dot" in str(trace.name) for trace in figure.data)
    assert "left out" in figure.layout.title.subtitle.text.replace("<br>", " ")
    assert "left out" not in plot_roofline(KERNELS, PEAK, MEMORY).layout.title.subtitle.text
    assert "No kernels" in plot_roofline([], PEAK, MEMORY).layout.title.subtitle.text


def holder(name, n_bytes, category="activations", count=1):
    return {"name": name, "category": category, "count": count, "bytes": n_bytes}


def test_holders_add_up_to_the_peak():
    rows = [holder(f"b{i}", 2**30 * (40 - i)) for i in range(LISTED + 5)]
    figure = plot_holders([*rows, holder("w", 2**20, "weights", 32)])
    assert sum(sum(trace.x) for trace in figure.data) == pytest.approx(
        sum(each["bytes"] for each in rows) / 2**30, rel=1e-3
    )
    assert figure.layout.yaxis.ticktext[-1] == "6 smaller"
    assert (
        f"activations {sum(each['bytes'] for each in rows) / 2**30:.3g} GiB, weights 1 MiB"
        in figure.layout.title.subtitle.text.replace("<br>", " ")
    )


def test_holders_say_how_many_and_what():
    figure = plot_holders([holder("<i>q</i>", 3 * 2**20, count=3), holder("q_proj", 2**20, "weights")])
    assert list(figure.layout.yaxis.ticktext) == ["&lt;i&gt;q&lt;/i&gt; × 3", "q_proj"]
    assert "75.0% of the peak" in figure.data[1].hovertext[0]
    assert plot_holders([]).layout.title.subtitle.text == "Nothing is allocated."

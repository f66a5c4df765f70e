"""Predicted against measured: every run is a point of its schedule, on the diagonal where they are equal."""

from __future__ import annotations

from traces.figures.agreement import plot_agreement


def test_points_and_diagonal() -> None:
    points = [
        {"schedule": "ring", "label": "<a>", "measured_s": 2e-3, "predicted_s": 1e-3},
        {"schedule": "burst", "label": "b", "measured_s": 4e-3, "predicted_s": 4e-3},
        {"schedule": "ring", "label": "c", "measured_s": 1e-2, "predicted_s": 3e-2},
    ]
    figure = plot_agreement(points)
    drawn = {trace.name: (list(trace.x), list(trace.y)) for trace in figure.data}
    assert drawn["ring"] == ([2.0, 10.0], [1.0, 30.0])
    assert drawn["burst"] == ([4.0], [4.0])
    assert drawn["equal"] == ([1.0, 30.0], [1.0, 30.0])
    assert "<a>" not in str(figure.data[1].text)
    assert plot_agreement([]).data == ()

"""Robust fits find what made the data, in spite of outliers, and say how sure they are."""

from __future__ import annotations

import numpy as np

from cost_models.calibration.robust import Parameter, fit_times

SIZE = np.geomspace(1e3, 1e9, 60)
PARAMETERS = [Parameter("overhead", 1e-6, 0, 1e-3), Parameter("rate", 1e10, 1e9, 1e13)]


def model(values: np.ndarray) -> np.ndarray:
    return values[0] + SIZE / values[1]


def noisy(spread: float, seed: int = 0) -> np.ndarray:
    return model(np.array([5e-6, 3e11])) * np.exp(np.random.default_rng(seed).normal(0, spread, len(SIZE)))


def test_exact_data_are_fitted_exactly() -> None:
    found = fit_times(model, noisy(0), PARAMETERS)
    assert abs(found["overhead"].value / 5e-6 - 1) < 1e-4 and abs(found["rate"].value / 3e11 - 1) < 1e-4


def test_a_few_disturbed_measurements_pull_little() -> None:
    disturbed = noisy(0.005)
    disturbed[::12] *= 5
    found = fit_times(model, disturbed, PARAMETERS)
    assert abs(found["overhead"].value / 5e-6 - 1) < 0.03 and abs(found["rate"].value / 3e11 - 1) < 0.03


def test_intervals_hold_the_truth_nine_times_in_ten() -> None:
    held = 0
    for seed in range(100):
        rate = fit_times(model, noisy(0.01, seed), PARAMETERS)["rate"]
        held += abs(rate.value - 3e11) <= rate.half_width
    assert 80 <= held <= 99


def test_what_the_data_do_not_say_has_no_interval() -> None:
    found = fit_times(model, noisy(0.01), [*PARAMETERS, Parameter("unused", 0.5, 0, 1)])
    assert np.isinf(found["unused"].half_width) and np.isfinite(found["rate"].half_width)

"""Robust fits of times that span six decades: soft-L1 least squares on the logarithm of predicted over measured.

    minimise  sum_i  rho(log(f_i(x) / t_i) / s),     rho(z) = 2 (sqrt(1 + z^2) - 1),     s = 2 %

A relative error of much more than s counts linearly, so that a disturbed measurement pulls little. Intervals come from
the curvature at the minimum, with the spread of the residuals estimated by their median.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

FloatArray = NDArray[np.float64]

SCALE = 0.02
LEVEL_Z = 1.645
"""Half-width of a 90 % interval, in standard deviations."""


@dataclass(frozen=True)
class Parameter:
    """A physical quantity to fit: name, first guess, bounds."""

    name: str
    guess: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A fitted value and the half-width of its 90 % interval; infinite where the data do not say."""

    value: float
    half_width: float


def fit_times(
    predict: Callable[[FloatArray], FloatArray], measured_s: FloatArray, parameters: Sequence[Parameter]
) -> dict[str, Estimate]:
    """Parameters whose predictions are relatively nearest to the measurements.

    Parameters
    ----------
    predict : seconds [n] of all measurements for the values of the parameters.
    measured_s : [n].
    """
    low, high = (np.array([getattr(each, side) for each in parameters]) for side in ("low", "high"))
    scale = np.maximum(np.abs([each.guess for each in parameters]), 1e-3 * (high - low))
    start = np.clip([each.guess for each in parameters], low + 1e-9 * (high - low), high - 1e-9 * (high - low))

    def residuals(values: FloatArray) -> FloatArray:
        return np.log(np.maximum(predict(values), 1e-12) / measured_s)

    found = least_squares(
        residuals, start, bounds=(low, high), loss="soft_l1", f_scale=SCALE, x_scale=scale, max_nfev=200
    )
    widths = _half_widths(found.jac * scale, residuals(found.x)) * scale
    at_bound = found.x - low < 1e-6 * (high - low)
    return {
        each.name: Estimate(float(value), float(width))
        for each, value, width in zip(parameters, np.where(at_bound, low, found.x), widths, strict=True)
    }


def _half_widths(jacobian: FloatArray, residuals: FloatArray) -> FloatArray:
    """Of 90 % intervals, by the pseudo-inverse of the curvature; ``jacobian`` for parameters of like size."""
    spread = 1.4826 * float(np.median(np.abs(residuals)))
    left, singular, right = np.linalg.svd(jacobian, full_matrices=False)
    del left
    known = singular > 1e-7 * singular[0] if len(singular) else singular > 0
    variance = ((right[known].T / singular[known]) ** 2).sum(axis=1) * spread**2
    said = (right[known] ** 2).sum(axis=0) > 1e-9
    return np.where(said, LEVEL_Z * np.sqrt(variance), np.inf)

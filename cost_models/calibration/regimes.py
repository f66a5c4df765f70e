"""Operations of two ranks by size, as regimes: a latency and a rate each, from records of one link type.

    t(n) = latency_i + n / rate_i          least squares of relative errors, both terms at least 0

Where regimes begin is found by dynamic programming: that division of the sizes, `FEWEST` and more to a regime, whose
sum of squares and `PENALTY` for each regime is least. Between the last size of a regime and the first of the next it
begins where NCCL changes channels or protocol, as it is modelled (`cost_models.network`), or else in the (geometric)
middle. Errors are of whole sizes left out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from cost_models.calibration.holdout import Errors
from cost_models.calibration.robust import LEVEL_Z, FloatArray
from cost_models.hardware.links import Regimes

FEWEST = 3
PENALTY = 0.002
"""A regime is worth 4.5 % of relative error at one size."""
FOLDS = 3
FASTEST = 1e15
Change = Callable[[float], Hashable]
"""What NCCL does with a message of a size: equal where it does the same."""


@dataclass(frozen=True)
class RegimesFit:
    """An operation of a link type.

    Attributes
    ----------
    regimes : fitted to all sizes.
    half_widths : of the 90 % intervals of each latency (s) and of each time per byte (s).
    left_out : errors on sizes left out; None where there are too few.
    """

    regimes: Regimes
    half_widths: tuple[tuple[float, float], ...]
    left_out: Errors | None


def fit_regimes(sizes: Sequence[float], seconds: Sequence[float], change: Change) -> RegimesFit:
    """Regimes of measured sizes (ascending, different) and their times.

    Parameters
    ----------
    change : what NCCL does with a size.
    """
    n, t = np.asarray(sizes, np.float64), np.asarray(seconds, np.float64)
    parts = _divide(n, t)
    widths = tuple(_half_widths(n[i:j], t[i:j]) for i, j in parts)
    return RegimesFit(_regimes(n, t, parts, change), widths, _left_out(n, t, change))


def _left_out(n: FloatArray, t: FloatArray, change: Change) -> Errors | None:
    if len(n) < FOLDS * (FEWEST + 1):
        return None
    errors = list[float]()
    for fold in range(FOLDS):
        out = np.arange(len(n)) % FOLDS == fold
        regimes = _regimes(n[~out], t[~out], _divide(n[~out], t[~out]), change)
        errors += [regimes.seconds(size) / took - 1 for size, took in zip(n[out], t[out], strict=True)]
    return Errors.of(np.array(errors))


def _divide(n: FloatArray, t: FloatArray) -> list[tuple[int, int]]:
    """Slices of the sizes, one a regime."""
    count = len(n)
    least, begin = np.full(count + 1, np.inf), np.zeros(count + 1, int)
    least[0] = 0.0
    for stop in range(1, count + 1):
        for start in range(max(0, stop - FEWEST) + 1):
            if (stop - start < FEWEST and count >= FEWEST) or not np.isfinite(least[start]):
                continue
            cost = least[start] + _line(n[start:stop], t[start:stop])[1] ** 2 + PENALTY
            if cost < least[stop]:
                least[stop], begin[stop] = cost, start
    found, stop = list[tuple[int, int]](), count
    while stop:
        found.append((int(begin[stop]), stop))
        stop = int(begin[stop])
    return found[::-1]


def _line(n: FloatArray, t: FloatArray) -> tuple[FloatArray, float]:
    """(latency, time per byte), and the root of the sum of squares of relative errors."""
    unit = n.max()
    values, error = nnls(np.stack([1 / t, n / unit / t], axis=1), np.ones(len(n)))
    return np.array([values[0], values[1] / unit]), float(error)


def _half_widths(n: FloatArray, t: FloatArray) -> tuple[float, float]:
    """Of 90 % intervals, from the spread of the relative errors."""
    unit = n.max()
    matrix, error = np.stack([1 / t, n / unit / t], axis=1), _line(n, t)[1]
    spread = error / max(len(n) - 2, 1) ** 0.5
    latency, slope = np.sqrt(np.diag(np.linalg.pinv(matrix.T @ matrix))) * spread * LEVEL_Z
    return float(latency), float(slope / unit)


def _regimes(n: FloatArray, t: FloatArray, parts: Sequence[tuple[int, int]], change: Change) -> Regimes:
    lines = [_line(n[i:j], t[i:j])[0] for i, j in parts]
    starts = [0.0] + [_between(float(n[i - 1]), float(n[i]), change) for i, _ in parts[1:]]
    rates = [1 / slope if slope * FASTEST > 1 else FASTEST for _, slope in lines]
    return Regimes(
        from_bytes=tuple(starts), latency_s=tuple(float(line[0]) for line in lines), bytes_per_s=tuple(rates)
    )


def _between(low: float, high: float, change: Change) -> float:
    """Where NCCL changes between two sizes; their geometric mean where it does not."""
    before = change(low)
    if change(high) == before:
        return float(np.sqrt(low * high))
    while high / low > 1 + 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if change(middle) == before else (low, middle)
    return low

"""Fit of the power limit to trains of kernels without rests (`validators.bench.trains`, kind ``train``).

    t(worked) / t(rested) = law of `cost_models.kernels.power`

fitted to all trains of one kernel at once: each has its own ``boost_s`` and loss, what the GPU's control does is one
set of terms for all. Samples are medians of short stretches of time, so that long trains of short kernels do not count
more. Products share one ``boost_s`` and loss, which is what their costs have. What comes back every second is
averaged: ``later_loss`` is the mean of what the other terms leave after the first time.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from cost_models.hardware.power import PowerTerms
from cost_models.kernels.power import slowed_s
from traces.records import CalibrationRecord

FloatArray = NDArray[np.float64]

EDGES_S = (*np.arange(0.0, 0.2, 0.01), *np.arange(0.2, 2.5, 0.025))
"""Of the stretches of time."""
SUSTAINED_S = 5e-3
SCALE = 0.01
RESTED_S = 0.025
"""Work after which a clock is certainly the highest yet."""
NAMES = ("overshoot", "overshoot_s", "deep_from_s", "deep_for_s", "deep_loss")
START, LOW, HIGH = (1.3, 0.1, 0.77, 0.3, 0.1), (1.0, 0.01, 0.5, 0.05, 0.0), (2.5, 0.4, 0.95, 0.6, 0.4)


@dataclass(frozen=True)
class Train:
    """Of one kernel: how many times as long as rested it took, after so much work at the lowered clock."""

    part: str
    worked_s: FloatArray
    slowed: FloatArray
    rested_s: float

    @property
    def is_product(self) -> bool:
        """Whether it is of a matrix product."""
        return self.part.startswith("gemm ")


@dataclass(frozen=True)
class PowerFit:
    """The control's terms; ``boost_s`` and ``sustained_loss`` of products; what is left, and of how many trains."""

    control: PowerTerms
    products: dict[str, float]
    error: float
    trains: int


def trains_of(records: Sequence[CalibrationRecord]) -> Iterator[Train]:
    """Trains of one kernel from a rested GPU."""
    for record in records:
        p = record.parameters
        alone = "seconds" in p and "before_s" not in p and " + " not in str(p.get("parts"))
        if record.kind == "train" and record.samples_s and alone:
            yield _train(str(p["parts"]), record.samples_s[1:])


def _train(part: str, samples_s: Sequence[float]) -> Train:
    begun = list(accumulate(samples_s, initial=0.0))[:-1]
    rested = statistics.median([s for s, at in zip(samples_s, begun, strict=True) if at < RESTED_S])
    worked, slowed = [], []
    for start, stop in pairwise(EDGES_S):
        chosen = [s for s, at in zip(samples_s, begun, strict=True) if start <= at < stop]
        if chosen:
            worked.append(statistics.mean(at for at in begun if start <= at < stop))
            slowed.append(statistics.median(chosen) / rested)
    return Train(part, np.array(worked), np.array(slowed), rested)


def fit_power(records: Sequence[CalibrationRecord]) -> PowerFit | None:
    """The power limit's terms, None where no trains were measured."""
    trains = list(trains_of(records))
    if not trains:
        return None
    groups = sorted({_group(train) for train in trains})
    own = [(0.05, 0.08)] * len(groups)
    start = np.array([*START, *(value for pair in own for value in pair)])
    low = np.array([*LOW, *([5e-3, 0.0] * len(groups))])
    high = np.array([*HIGH, *([0.3, 0.4] * len(groups))])

    def residuals(values: FloatArray) -> FloatArray:
        control = _control(values)
        found = []
        for train in trains:
            place = len(NAMES) + 2 * groups.index(_group(train))
            predicted = _predict(train, control, float(values[place]), float(values[place + 1]))
            found.append(np.log(predicted / train.slowed) * _weights(train))
        return np.concatenate(found)

    fit = least_squares(residuals, start, bounds=(low, high), loss="soft_l1", f_scale=SCALE, x_scale=np.abs(start),
                        diff_step=[1e-2] * len(start))  # fmt: skip
    products = {}
    if "gemm" in groups:
        place = len(NAMES) + 2 * groups.index("gemm")
        products = {"boost_s": float(fit.x[place]), "sustained_loss": float(fit.x[place + 1]),
                    "sustained_s": SUSTAINED_S}  # fmt: skip
    left = residuals(fit.x)
    control = _control(fit.x)
    times = np.concatenate([train.worked_s for train in trains])
    later = left[times > control.deep_from_s + control.deep_for_s]
    mean = max(0.0, -float(np.mean(later))) if len(later) else 0.0
    control = control.model_copy(update={"later_loss": float(f"{mean:.3g}")})
    return PowerFit(control, products, float(np.median(np.abs(left))), len(trains))


def _group(train: Train) -> str:
    return "gemm" if train.is_product else train.part


def _weights(train: Train) -> FloatArray:
    """The first fifth of a second has stretches half as long as the rest."""
    return np.where(train.worked_s < 0.2, 0.63, 1.0)


def _control(values: FloatArray) -> PowerTerms:
    return PowerTerms(**{name: float(f"{value:.3g}") for name, value in zip(NAMES, values, strict=False)})


def _predict(train: Train, control: PowerTerms, boost_s: float, loss: float) -> FloatArray:
    """Slowing of a kernel at each time worked: time is the measured one, which the law has by work."""
    limit = SimpleNamespace(boost_s=boost_s, sustained_loss=loss, sustained_s=SUSTAINED_S)
    busy = np.arange(0.0, train.worked_s[-1] + 2 * train.rested_s, train.rested_s)
    ends = np.array([slowed_s(limit, control, float(each)) for each in busy])
    taken = np.diff(ends) / train.rested_s
    return np.asarray(np.interp(train.worked_s, ends[:-1], taken))

"""Fit of dense products: what `cost_models.kernels.gemm` prices, on isolated calls on a rested GPU.

    overhead_s, efficiency, prologue_s, edge_cost       for the largest tile that the profile has

The power limit of products is fitted to trains (`power`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cost_models.calibration.observations import isolated_s
from cost_models.calibration.robust import Estimate, Parameter, fit_times
from cost_models.hardware import HardwareProfile
from cost_models.kernels import estimate_gemm_s
from traces.records import CalibrationRecord

FloatArray = NDArray[np.float64]

PARAMETERS = (
    Parameter("overhead_s", 3e-6, 0.0, 5e-5),
    Parameter("efficiency", 0.85, 0.05, 1.0),
    Parameter("prologue_s", 1.5e-6, 0.0, 2e-5),
    Parameter("edge_cost", 0.3, 0.0, 3.0),
)


def product_size(record: CalibrationRecord) -> tuple[int, int, int]:
    """(m, n, k) of what was multiplied: of dx = dy w and dw = dy^T x the layer's sizes in another order."""
    m, n, k = (int(cast(int, record.parameters[name])) for name in ("m", "n", "k"))
    form = record.parameters.get("form")
    return {"dx": (m, k, n), "dw": (n, k, m)}.get(str(form), (m, n, k))


def fit_gemm(records: Sequence[CalibrationRecord], profile: HardwareProfile) -> dict[str, Estimate]:
    """The parameters by name; none where no products were measured."""
    chosen = [each for each in records if each.kind == "gemm" and each.samples_s]
    if not chosen:
        return {}
    sizes, measured = [product_size(each) for each in chosen], np.array([isolated_s(each) for each in chosen])

    def predict(values: FloatArray) -> FloatArray:
        costs = {each.name: float(value) for each, value in zip(PARAMETERS, values, strict=True)}
        tried = profile.model_copy(update={"gemm": profile.gemm.model_copy(update=costs)})
        return np.array([estimate_gemm_s(tried, *size, "bf16") for size in sizes])

    return fit_times(predict, measured, PARAMETERS)


def gemm_errors(records: Sequence[CalibrationRecord], profile: HardwareProfile) -> FloatArray:
    """Relative errors of a profile's prices."""
    chosen = [each for each in records if each.kind == "gemm" and each.samples_s]
    predicted = [estimate_gemm_s(profile, *product_size(each), "bf16") for each in chosen]
    return np.array([s / isolated_s(each) - 1 for s, each in zip(predicted, chosen, strict=True)])

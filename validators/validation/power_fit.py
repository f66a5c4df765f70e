"""The power limit of dense products, from measured training steps: microbenchmarks rest between calls, steps do not.

    least over (boost_s, loss) of the mean over runs of  | log (predicted / measured) |  of their products' time

``sustained_s`` is that of the attention kernels. Runs in which the device does not set the pace (shorter than
`SHORTEST_S`) say nothing of it. Runs that judge are to be drawn from another seed.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize

from cost_models.hardware import HardwareProfile
from traces.errors import InputError
from validators.validation.agreement import compare_kinds
from validators.validation.forecast import GpuPredictor
from validators.validation.runs import MeasuredRun, RunFolder

SHORTEST_S = 0.04
FEWEST = 8
"""Runs below which nothing is fitted."""
SUSTAINED_S = 0.005
PRODUCTS = "linear"
"""How the kinds of products begin."""


def fit_power(folder: RunFolder, profile: HardwareProfile, topology: str) -> dict[str, float]:
    """``boost_s``, ``sustained_loss`` and ``sustained_s`` of products, and ``runs``.

    Parameters
    ----------
    profile : with its kernels fitted.
    topology : of the GPUs.

    Raises
    ------
    InputError
        Where there are hardly any runs.
    """
    runs = [run for run in folder.runs.values() if run.outcome == "measured" and run.time_s >= SHORTEST_S]
    if len(runs) < FEWEST:
        raise InputError("too few steps to fit the power limit to", got=len(runs), expected=f"{FEWEST} of 40 ms")

    def error(values: np.ndarray) -> float:
        tried = _with_limit(profile, values)
        return float(np.mean([abs(products_off(folder, run, GpuPredictor(tried, topology))) for run in runs]))

    start = np.array([0.05, 0.06])
    found = minimize(error, start, method="Nelder-Mead", bounds=[(0.0, 0.3), (0.0, 0.4)],
                     options={"xatol": 2e-3, "fatol": 2e-4, "maxfev": 40})  # fmt: skip
    boost_s, loss = (float(each) for each in found.x)
    return {"boost_s": boost_s, "sustained_loss": loss, "sustained_s": SUSTAINED_S, "runs": len(runs)}


def _with_limit(profile: HardwareProfile, values: np.ndarray) -> HardwareProfile:
    limit = {"boost_s": float(values[0]), "sustained_loss": float(values[1]), "sustained_s": SUSTAINED_S}
    return profile.model_copy(update={"gemm": profile.gemm.model_copy(update=limit)})


def products_off(folder: RunFolder, run: MeasuredRun, predictor: GpuPredictor) -> float:
    """Logarithm of predicted over measured time of a run's products."""
    predicted, measured = predictor.predict(run).timeline, folder.timeline(run)
    assert predicted is not None and measured is not None
    kinds = [each for each in compare_kinds(predicted, measured) if each.kind.startswith(PRODUCTS)]
    return math.log(sum(each.predicted_s for each in kinds) / sum(each.measured_s for each in kinds))

"""Make the committed terms of the network anew: ``python -m simulator.replay.refit nccl``.

For every machine of `cost_models/network/data/fit.toml` start, step and efficiency (or those it names) minimise

    sum over its fit rows of rho(ln(predicted / published)),       rho = soft L1 at 10 %

within 0 to 50 us, 0.5 to 60 us and 0.3 to 1. What the entry says of its rows is kept.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from cost_models.network.terms import FIT_FILE, NUMBERS, MachineFit, NetworkTerms, machine_fits
from simulator.replay.rows import Row, Skip
from simulator.replay.sources.nccl import SOURCE
from traces.atomic import write_text_atomic

UNITS = np.array([1e-6, 1e-6, 1.0])
START, LOWEST, HIGHEST = (4.0, 9.0, 0.7), (0.0, 0.5, 0.3), (50.0, 60.0, 1.0)
SCALE = (1.0, 1.0, 0.1)


def refit_nccl() -> None:
    """Fit every machine and write the numbers in the file's order."""
    parts = FIT_FILE.read_text(encoding="utf-8").split("[[fit]]")
    for number, fit in enumerate(machine_fits(), 1):
        for name, value in zip(NUMBERS, fit_terms(fit), strict=True):
            parts[number] = re.sub(rf"(?m)^{name} = .*$", f"{name} = {value:.4g}", parts[number])
    write_text_atomic(FIT_FILE, "[[fit]]".join(parts))


def fit_terms(fit: MachineFit) -> tuple[float, ...]:
    """The three numbers of a machine."""
    rows = [row for row in SOURCE.rows if fit.uses(row.fields) and _is_usable(row)]
    published = np.array([SOURCE.published(row)[0] for row in rows])

    free = [NUMBERS.index(name) for name in fit.fitted]
    numbers = np.array([getattr(fit.terms, name) for name in NUMBERS])

    def residuals(x: NDArray[np.float64]) -> NDArray[np.float64]:
        numbers[free] = x * UNITS[free]
        start_s, step_s, efficiency = numbers.tolist()
        terms = NetworkTerms(start_s, step_s, efficiency, "")
        return np.log([SOURCE.predict_with(row, terms) for row in rows] / published)

    start, low, high, scale = (np.array(each)[free] for each in (START, LOWEST, HIGHEST, SCALE))
    found = least_squares(residuals, start, bounds=(low, high), x_scale=scale, loss="soft_l1", f_scale=0.1,
                          diff_step=[1e-4] * len(free),)  # fmt: skip
    numbers[free] = found.x * UNITS[free]
    return tuple(numbers.tolist())


def _is_usable(row: Row) -> bool:
    try:
        SOURCE.read(row)
    except Skip:
        return False
    return True

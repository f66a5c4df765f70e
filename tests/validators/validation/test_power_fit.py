"""The power limit of products against steps that were not in its fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cost_models.hardware import HardwareProfile, load_hardware
from traces.errors import InputError
from validators.validation.forecast import GpuPredictor
from validators.validation.power_fit import fit_power, products_off
from validators.validation.runs import RunFolder

VALIDATION = Path(__file__).parents[3] / "docs" / "validation"


def _median_off(profile: HardwareProfile, least_s: float, most_s: float) -> float:
    folder = RunFolder(VALIDATION / "h100-steps-heldout")
    runs = [run for run in folder.runs.values() if run.outcome == "measured" and least_s <= run.time_s < most_s]
    assert len(runs) >= 4
    return float(np.median([products_off(folder, run, GpuPredictor(profile, "dgx-h100")) for run in runs]))


def test_it_lowers_the_error_of_long_steps_and_not_that_of_short_ones() -> None:
    limited = load_hardware("h100-sxm")
    free = limited.model_copy(update={"gemm": limited.gemm.model_copy(update={"sustained_loss": 0.0})})
    without, with_it = (_median_off(profile, 0.1, 0.4) for profile in (free, limited))
    assert without < -0.03 and abs(with_it) < 0.7 * abs(without)
    without, with_it = (_median_off(profile, 0.04, 0.07) for profile in (free, limited))
    assert abs(with_it) <= abs(without)


def test_too_few_steps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too few steps"):
        fit_power(RunFolder(tmp_path), load_hardware("h100-sxm"), "dgx-h100")

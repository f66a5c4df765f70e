"""The power limit is found again in trains that it made."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from cost_models.calibration.power import fit_power
from cost_models.hardware.power import PowerTerms
from cost_models.kernels.power import slowed_s
from traces.records import CalibrationRecord

CONTROL = PowerTerms(overshoot=1.4, overshoot_s=0.08, deep_from_s=0.8, deep_for_s=0.2, deep_loss=0.12)


def train(part: str, once_s: float, boost_s: float, loss: float, seconds: float = 2.4) -> CalibrationRecord:
    limit = SimpleNamespace(boost_s=boost_s, sustained_loss=loss, sustained_s=5e-3)
    ends = [slowed_s(limit, CONTROL, number * once_s) for number in range(int(seconds / once_s))]
    noise = np.random.default_rng(0).normal(1, 0.002, len(ends) - 1)
    parameters = {"parts": part, "seconds": seconds}
    return CalibrationRecord("train", parameters, "measured", tuple((np.diff(ends) * noise).tolist()), "machine")


def test_terms_are_found_again() -> None:
    found = fit_power([
        train("gemm 8192x8192x8192", 2e-3, 0.05, 0.11),
        train("cudnn forward 1x32/8x128 32768 causal", 9e-3, 0.04, 0.08),
        train("flash2 backward 1x32/8x128 32768 causal", 7e-3, 0.2, 0.0),
    ])  # fmt: skip
    assert found is not None and found.trains == 3 and found.error < 0.005
    assert found.products["boost_s"] == pytest.approx(0.05, abs=0.01)
    assert found.products["sustained_loss"] == pytest.approx(0.11, abs=0.01)
    assert found.control.overshoot == pytest.approx(1.4, abs=0.2)
    assert found.control.deep_from_s == pytest.approx(0.8, abs=0.03)
    assert found.control.deep_loss == pytest.approx(0.12, abs=0.02)
    assert found.control.later_loss < 0.005


def test_what_returns_later_is_averaged() -> None:
    worse = train("flash2 backward 1x32/8x128 32768 causal", 7e-3, 0.2, 0.0)
    samples = [s * (1.1 if 1.5 < 7e-3 * n < 1.9 else 1.0) for n, s in enumerate(worse.samples_s)]
    found = fit_power([CalibrationRecord("train", worse.parameters, "measured", tuple(samples), "machine")])
    assert found is not None and 0.01 < found.control.later_loss < 0.05 and not found.products


def test_mixed_trains_and_rests_are_left_out() -> None:
    one = train("gemm 8192x8192x8192", 2e-3, 0.05, 0.11, 0.5)
    parts = {"parts": "gemm 8x8x8 + add 8", "seconds": 1.0}, {"parts": "gemm 8x8x8", "seconds": 0.1, "before_s": 1.0}
    assert fit_power([CalibrationRecord("train", p, "measured", one.samples_s, "machine") for p in parts]) is None

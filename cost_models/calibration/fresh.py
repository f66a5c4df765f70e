"""Errors on cases that were measured to judge by, and that no fit has seen (`validators.bench.fresh`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cost_models.calibration.holdout import Errors
from cost_models.calibration.observations import isolated_s, to_sample
from cost_models.calibration.products import product_size
from cost_models.hardware import HardwareProfile
from cost_models.kernels import estimate_attention_s, estimate_gemm_s
from traces.records import CalibrationRecord


def fresh_errors(records: Sequence[CalibrationRecord], profile: HardwareProfile) -> dict[str, Errors]:
    """Errors by kernel, direction and head dim; of each direction; and of products.

    Parameters
    ----------
    records : of fresh cases.
    profile : with everything fitted.
    """
    found: dict[str, list[float]] = {}
    for record in records:
        if record.samples_s and record.kind in ("attention", "gemm"):
            names, predicted_s = _predict(record, profile)
            for name in names:
                found.setdefault(name, []).append(predicted_s / isolated_s(record) - 1)
    return {name: Errors.of(np.array(errors)) for name, errors in sorted(found.items())}


def _predict(record: CalibrationRecord, profile: HardwareProfile) -> tuple[list[str], float]:
    """What a record counts for, and its predicted time."""
    if record.kind == "gemm":
        return ["products"], estimate_gemm_s(profile, *product_size(record), str(record.parameters["dtype"]))
    sample = to_sample(record)
    name = f"{sample.kernel} {sample.direction}, head dim {sample.shape.head_dim}"
    seconds = estimate_attention_s(profile, sample.kernel, sample.call, sample.shape, sample.direction)
    return [name, f"all {sample.direction}"], seconds

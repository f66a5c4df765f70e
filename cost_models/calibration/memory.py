"""Fits of memory-bound kernels and matrix products.

elementwise   t = overhead + bytes / (efficiency of the pattern x memory bandwidth)
read share    of memory bandwidth: bytes of K and V over the time of one query's attention to many keys
gemm          t = overhead + waves x tile FLOP / (efficiency x peak / SMs)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cost_models.calibration.observations import isolated_s, to_sample
from cost_models.calibration.robust import Estimate, Parameter, fit_times
from cost_models.hardware import HardwareProfile
from cost_models.kernels import attention_bytes, estimate_elementwise_s, estimate_gemm_s
from traces.records import CalibrationRecord

FloatArray = NDArray[np.float64]

LEAST_READ_BYTES = 1 << 30
"""Bytes of K and V from which on nothing but reading them takes time."""
MANY_LAUNCHES = ("select",)
"""Kinds of operations that are many launches (a selection sorts): their overhead is not the others'."""


def fit_elementwise(records: Sequence[CalibrationRecord], profile: HardwareProfile) -> dict[str, Estimate]:
    """``overhead_s``, and the efficiency of each measured pattern by its name."""
    chosen = [each for each in records if each.kind == "elementwise" and each.samples_s]
    chosen = [each for each in chosen if each.parameters["operation_kind"] not in MANY_LAUNCHES]
    if not chosen:
        return {}
    patterns = sorted({str(each.parameters["pattern"]) for each in chosen})
    which = np.array([patterns.index(str(each.parameters["pattern"])) for each in chosen])
    moved = np.array([_number(each, "bytes_read") + _number(each, "bytes_written") for each in chosen])
    measured = np.array([isolated_s(each) for each in chosen])

    def predict(values: FloatArray) -> FloatArray:
        return np.asarray(values[0] + moved / (values[1:][which] * profile.hbm_bytes_per_s))

    efficiencies = [Parameter(pattern, 0.6, 0.01, 1.0) for pattern in patterns]
    return fit_times(predict, measured, [Parameter("overhead_s", 5e-6, 0.0, 5e-5), *efficiencies])


def fit_gemm(records: Sequence[CalibrationRecord], profile: HardwareProfile) -> dict[str, Estimate]:
    """``overhead_s`` and ``efficiency``, for the tile that the profile has."""
    chosen = [each for each in records if each.kind == "gemm" and each.samples_s]
    if not chosen:
        return {}
    costs = profile.gemm
    m, n, k = (np.array([_number(each, name) for each in chosen]) for name in ("m", "n", "k"))
    waves = np.ceil(np.ceil(m / costs.tile_rows) * np.ceil(n / costs.tile_columns) / profile.sm_count)
    flop = waves * 2.0 * costs.tile_rows * costs.tile_columns * k * profile.sm_count
    measured = np.array([isolated_s(each) for each in chosen])

    def predict(values: FloatArray) -> FloatArray:
        return np.asarray(values[0] + flop / (values[1] * profile.peak("bf16")))

    return fit_times(
        predict, measured, [Parameter("overhead_s", 5e-6, 0.0, 5e-5), Parameter("efficiency", 0.8, 0.05, 1.0)]
    )


def elementwise_errors(records: Sequence[CalibrationRecord], profile: HardwareProfile) -> dict[str, FloatArray]:
    """Relative errors of a profile's prices, by pattern."""
    found: dict[str, list[float]] = {}
    for record in records:
        if (
            record.kind == "elementwise"
            and record.samples_s
            and record.parameters["operation_kind"] not in MANY_LAUNCHES
        ):
            pattern = str(record.parameters["pattern"])
            read, written = _number(record, "bytes_read"), _number(record, "bytes_written")
            predicted = float(estimate_elementwise_s(profile, read, written, pattern))
            found.setdefault(pattern, []).append(predicted / isolated_s(record) - 1)
    return {pattern: np.array(errors) for pattern, errors in sorted(found.items())}


def gemm_errors(records: Sequence[CalibrationRecord], profile: HardwareProfile) -> FloatArray:
    """Relative errors of a profile's prices."""
    chosen = [each for each in records if each.kind == "gemm" and each.samples_s]
    sizes = [(int(_number(each, "m")), int(_number(each, "n")), int(_number(each, "k"))) for each in chosen]
    predicted = [estimate_gemm_s(profile, m, n, k, "bf16") for m, n, k in sizes]
    return np.array([s / isolated_s(each) - 1 for s, each in zip(predicted, chosen, strict=True)])


def read_shares(records: Sequence[CalibrationRecord], profile: HardwareProfile) -> dict[str, float]:
    """``read_share`` of each kernel that was measured with one query and enough keys: the median."""
    found: dict[str, list[float]] = {}
    for record in records:
        if record.kind == "attention" and record.samples_s and record.parameters["rows"] == 1:
            sample = to_sample(record)
            moved = attention_bytes((sample.call,), sample.shape, "forward")
            if moved > LEAST_READ_BYTES:
                share = moved / sample.seconds / profile.hbm_bytes_per_s
                found.setdefault(str(record.parameters["kernel"]), []).append(min(1.0, share))
    return {kernel: float(np.median(shares)) for kernel, shares in sorted(found.items())}


def _number(record: CalibrationRecord, name: str) -> float:
    return float(cast(int, record.parameters[name]))

"""Fits of memory-bound kernels.

elementwise   t = overhead + bytes / (efficiency of the pattern x memory bandwidth)   in a stream of kernels; where it
              is alone, between two events on a GPU without work, it takes a constant more
read share    of memory bandwidth: bytes of K and V over the time of one query's attention to many keys
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cost_models.calibration.observations import isolated_s, to_sample
from cost_models.calibration.robust import Estimate, Parameter, fit_times
from cost_models.hardware import HardwareProfile
from cost_models.kernels import attention_bytes, estimate_elementwise_s
from traces.records import CalibrationRecord

FloatArray = NDArray[np.float64]

LEAST_READ_BYTES = 1 << 30
"""Bytes of K and V from which on nothing but reading them takes time."""
LEAST_CACHED_BYTES, MOST_CACHED_BYTES = 1 << 16, 1 << 27
"""Bytes between which what a kernel moves may lie in the L2 cache where it was repeated."""
IN_A_ROW = {"add": ("accumulate", 6), "fill": ("fill", 2), "cast": ("copy", 6)}
"""Access pattern and bytes of an element of the kernels that were measured in a row."""
MANY_LAUNCHES = ("select", "combine")
"""Kinds of operations that are many launches here: a selection sorts, and the executors combine in PyTorch, pass by
pass (at 5 to 9 % of an H100's bandwidth). Their costs are not those of one kernel."""


def fit_elementwise(records: Sequence[CalibrationRecord], profile: HardwareProfile) -> dict[str, Estimate]:
    """``overhead_s``, ``isolation_s``, and the efficiency of each measured pattern by its name."""
    alone = [each for each in records if each.kind == "elementwise" and each.samples_s]
    alone = [each for each in alone if each.parameters["operation_kind"] not in MANY_LAUNCHES]
    seen = [(_pattern(each), _moved(each), isolated_s(each), 1.0) for each in alone]
    seen += [(*_in_a_row(each), each.median_s, 0.0) for each in records if _is_in_a_row(each)]
    if not seen:
        return {}
    names, bytes_, seconds, isolated = zip(*seen, strict=True)
    patterns = sorted(set(names))
    which, moved = np.array([patterns.index(name) for name in names]), np.array(bytes_)

    def predict(values: FloatArray) -> FloatArray:
        rates = values[2:][which] * profile.hbm_bytes_per_s
        return np.asarray(values[0] + values[1] * np.array(isolated) + moved / rates)

    free = [Parameter("overhead_s", 2e-6, 0.0, 5e-5), Parameter("isolation_s", 3e-6, 0.0, 5e-5)]
    fitted = fit_times(predict, np.array(seconds), [*free, *(Parameter(name, 0.6, 0.01, 1.0) for name in patterns)])
    if all(isolated):  # only the sum of both is known
        both = fitted["overhead_s"].value + fitted["isolation_s"].value
        fitted |= {"overhead_s": Estimate(both, fitted["isolation_s"].half_width), "isolation_s": Estimate(0.0, np.inf)}
    return fitted


def shares_of(fitted: Mapping[str, Estimate]) -> dict[str, float]:
    """The fitted shares of memory bandwidth, by access pattern."""
    return {name: each.value for name, each in fitted.items() if name not in ("overhead_s", "isolation_s")}


def _pattern(record: CalibrationRecord) -> str:
    return str(record.parameters["pattern"])


def _moved(record: CalibrationRecord) -> float:
    return _number(record, "bytes_read") + _number(record, "bytes_written")


def _is_in_a_row(record: CalibrationRecord) -> bool:
    """Kernels that followed each other, and whose bytes the L2 cache does not hold from one to the next."""
    if record.kind != "train" or not record.samples_s or "in_a_row" not in record.parameters:
        return False
    moved = _in_a_row(record)[1]
    return not LEAST_CACHED_BYTES < moved < MOST_CACHED_BYTES


def _in_a_row(record: CalibrationRecord) -> tuple[str, float]:
    """Access pattern and bytes moved of a kernel in a row (`validators.bench.trains`)."""
    name, count = str(record.parameters["parts"]).split(" ")
    pattern, element_bytes = IN_A_ROW[name]
    return pattern, float(element_bytes * int(count))


def elementwise_errors(
    records: Sequence[CalibrationRecord], profile: HardwareProfile, isolation_s: float
) -> dict[str, FloatArray]:
    """Relative errors of a profile's prices, by pattern, of kernels that are alone."""
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
            found.setdefault(pattern, []).append((predicted + isolation_s) / isolated_s(record) - 1)
    return {pattern: np.array(errors) for pattern, errors in sorted(found.items())}


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

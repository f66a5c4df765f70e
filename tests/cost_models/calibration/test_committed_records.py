"""Committed records, fitted again: the errors that the reports state, and the numbers that the profiles have.

Golden figures of cuDNN at head dim 128; all passes are fitted by ``attnsim calibrate --hardware NAME``, which writes
``docs/validation/calibration-NAME.md``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import attnsim
from cost_models.calibration.attention import TILINGS, fit_pass
from cost_models.calibration.fit import _with_elementwise, _with_power
from cost_models.calibration.fresh import fresh_errors
from cost_models.calibration.holdout import Errors, by_length, held_out_errors, predict_s
from cost_models.calibration.host import fit_host
from cost_models.calibration.memory import fit_elementwise
from cost_models.calibration.observations import attention_samples
from cost_models.calibration.power import fit_power
from cost_models.calibration.products import fit_gemm
from cost_models.hardware import load_hardware
from traces.records import CalibrationRecord, latest, read_folder

RECORDS = Path(attnsim.__file__).parent / "validators" / "records"
GPUS = ("h100-sxm", "h200-sxm")
GOLDEN = {
    # (GPU, direction): (median, 95th percentile) of the errors on lengths left out
    ("h200-sxm", "forward"): (0.0097, 0.0487),
    ("h200-sxm", "backward"): (0.0154, 0.0516),
    ("h100-sxm", "forward"): (0.0144, 0.0660),
    ("h100-sxm", "backward"): (0.0103, 0.0501),
}
FRESH = {
    # (GPU, what): (median, 95th percentile) of the errors of the committed profile
    ("h200-sxm", "all forward"): (0.0140, 0.0725),
    ("h200-sxm", "all backward"): (0.0154, 0.0537),
    ("h200-sxm", "products"): (0.0094, 0.0305),
    ("h100-sxm", "all forward"): (0.0194, 0.0968),
    ("h100-sxm", "all backward"): (0.0130, 0.0516),
    ("h100-sxm", "products"): (0.0215, 0.0703),
}


@pytest.fixture(scope="module")
def records() -> dict[str, list[CalibrationRecord]]:
    everything = {name: latest(read_folder(RECORDS / name)) for name in GPUS}
    return {name: [each for each in mine if not each.parameters.get("fresh")] for name, mine in everything.items()}


@pytest.mark.parametrize("gpu", GPUS)
def test_records_are_whole(gpu: str, records: dict[str, list[CalibrationRecord]]) -> None:
    assert len(records[gpu]) > 1000 and all(record.outcome == "measured" for record in records[gpu])
    attention = [record for record in records[gpu] if record.kind == "attention"]
    for record in attention:
        assert set(record.check) == (
            {"o", "lse"} if record.parameters["direction"] == "forward" else {"dq", "dk", "dv"}
        )
        assert all(np.isfinite(error) and error < 0.015 for error in record.check.values())


@pytest.mark.parametrize(("gpu", "direction"), GOLDEN)
def test_errors_on_lengths_left_out(gpu: str, direction: str, records: dict[str, list[CalibrationRecord]]) -> None:
    key = "cudnn", direction, 128
    samples, profile = attention_samples(records[gpu])[key], load_hardware(gpu)
    errors = held_out_errors(samples, TILINGS[key], profile, by_length)
    assert errors is not None
    found = Errors.of(errors)
    assert (found.median, found.p95) == pytest.approx(GOLDEN[gpu, direction], rel=0.02)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_profiles_are_the_fit_of_the_records(direction: str, records: dict[str, list[CalibrationRecord]]) -> None:
    key, gpu = ("cudnn", direction, 128), "h200-sxm"
    profile = load_hardware(gpu)
    based = _with_elementwise(profile, fit_elementwise(records[gpu], profile))
    samples = attention_samples(records[gpu])[key]
    curve = fit_pass(samples, TILINGS[key], based).curve
    committed = profile.kernels["cudnn"].direction(direction, 128)
    for sample in samples[::7]:
        assert predict_s(curve, sample, profile) == pytest.approx(predict_s(committed, sample, profile), rel=2e-3)
    source = profile.sources[f"kernels.cudnn.{direction}.prologue_s"]
    assert source.basis == "calibrated" and source.relative_error is not None and 0.01 < source.relative_error < 0.1


@pytest.mark.parametrize("gpu", GPUS)
def test_memory_products_and_host(gpu: str, records: dict[str, list[CalibrationRecord]]) -> None:
    profile = load_hardware(gpu)
    elementwise, host, power = (fit(records[gpu]) for fit in (
        lambda mine: fit_elementwise(mine, profile), fit_host, fit_power,
    ))  # fmt: skip
    gemm = fit_gemm(records[gpu], _with_power(_with_elementwise(profile, elementwise), power))
    for name, share in profile.elementwise.efficiency.items():
        if name in elementwise:
            assert elementwise[name].value == pytest.approx(share, rel=2e-3)
    for name, estimate in gemm.items():
        assert estimate.value == pytest.approx(getattr(profile.gemm, name), rel=2e-3, abs=1e-9)
    assert power.products["sustained_loss"] == pytest.approx(profile.gemm.sustained_loss, rel=2e-3)
    assert power.control == profile.power
    for name, value in host.terms.items():
        assert value == pytest.approx(getattr(profile.host, name), rel=1e-3), name
    for name, table in host.tables.items():
        assert table == pytest.approx(getattr(profile.host, name), rel=1e-3), name
    assert host.attention["cudnn.backward"] == pytest.approx(profile.kernels["cudnn"].backward.host_s, rel=1e-3)


@pytest.mark.parametrize(("gpu", "what"), FRESH)
def test_errors_on_what_no_fit_has_seen(gpu: str, what: str) -> None:
    fresh = [each for each in latest(read_folder(RECORDS / gpu)) if each.parameters.get("fresh")]
    found = fresh_errors(fresh, load_hardware(gpu))[what]
    assert (found.median, found.p95) == pytest.approx(FRESH[gpu, what], rel=0.05)

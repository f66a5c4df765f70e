"""All fits of one GPU, in the order in which they depend on each other: memory-bound kernels first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from cost_models.calibration.attention import TILINGS, AttentionSample, PassFit, fit_pass
from cost_models.calibration.fresh import fresh_errors
from cost_models.calibration.holdout import Errors, by_length, by_shape, held_out_errors, predict_s
from cost_models.calibration.host import HostTerms, fit_host
from cost_models.calibration.memory import elementwise_errors, fit_elementwise, read_shares, shares_of
from cost_models.calibration.observations import PassKey, attention_samples
from cost_models.calibration.overlay import render_overlay
from cost_models.calibration.power import PowerFit, fit_power
from cost_models.calibration.products import fit_gemm, gemm_errors
from cost_models.calibration.robust import Estimate, FloatArray
from cost_models.hardware import AttentionCurve, HardwareProfile
from cost_models.hardware.attention import Passes
from traces.errors import InputError
from traces.records import CalibrationRecord

FEWEST = 3
"""Measurements of a pass below which it is not fitted."""

LONG_S = 2e-3

Progress = Callable[[str], None]


@dataclass(frozen=True)
class FittedPass:
    """A pass of a kernel at a head dim: the fit, and its errors."""

    key: PassKey
    fit: PassFit
    samples: Sequence[AttentionSample]
    inside: Errors
    lengths: Errors | None
    shapes: Errors | None
    worst: tuple[tuple[AttentionSample, float], ...]
    length_errors: FloatArray | None = None


@dataclass(frozen=True)
class Calibration:
    """What was fitted, and to what."""

    hardware: str
    passes: list[FittedPass]
    elementwise: dict[str, Estimate]
    gemm: dict[str, Estimate]
    host: HostTerms
    elementwise_errors: dict[str, Errors]
    gemm_errors: dict[str, Errors]
    outcomes: dict[str, int]
    spread: tuple[float, float] | None = None
    machines: list[dict[str, Any]] = field(default_factory=list)
    read_shares: dict[str, float] = field(default_factory=dict)
    power: PowerFit | None = None
    fresh: dict[str, Errors] = field(default_factory=dict)
    calls: dict[str, float] = field(default_factory=dict)
    calls_reference: str = ""

    def overlay(self, reference: str) -> str:
        """TOML of the calibrated terms; ``reference`` says where the records are."""
        return render_overlay(self, reference)

    def summary(self) -> dict[str, Any]:
        """Figures as JSON."""
        return {
            "hardware": self.hardware,
            "records": self.outcomes,
            "spread": self.spread,
            "machines": self.machines,
            "passes": [_pass_summary(each) for each in self.passes],
            "elementwise": {name: _interval(each) for name, each in self.elementwise.items()},
            "elementwise_errors": {name: vars(each) for name, each in self.elementwise_errors.items()},
            "gemm": {name: _interval(each) for name, each in self.gemm.items()},
            "gemm_errors": {name: vars(each) for name, each in self.gemm_errors.items()},
            "host_s": asdict(self.host),
            "read_shares": self.read_shares,
            "power": None if self.power is None else asdict(self.power) | {"control": self.power.control.model_dump()},
            "fresh": {name: vars(each) for name, each in self.fresh.items()},
            "calls": self.calls,
        }


def calibrate(
    records: Sequence[CalibrationRecord],
    profile: HardwareProfile,
    *,
    machines: Sequence[dict[str, Any]] = (),
    progress: Progress = lambda _: None,
) -> Calibration:
    """Fit a profile's kernels to records.

    Parameters
    ----------
    records : of one GPU model, one per key.
    profile : of that GPU, for its specification and what is not measured.
    machines : provenance of the records.
    progress : told what is being fitted.

    Raises
    ------
    InputError
        Where there is nothing to fit to.
    """
    fresh = [each for each in records if each.parameters.get("fresh")]
    records = [each for each in records if not each.parameters.get("fresh")]
    elementwise, power = fit_elementwise(records, profile), fit_power(records)
    based = _with_power(_with_elementwise(profile, elementwise), power)
    gemm = fit_gemm(records, based)
    passes = []
    for key, samples in sorted(attention_samples(records).items()):
        if len(samples) >= FEWEST and key in TILINGS:
            progress(f"{key[0]} {key[1]}, head dim {key[2]}")
            passes.append(_fit(key, samples, based))
    if not passes and not elementwise and not gemm:
        raise InputError("the records hold nothing to fit", expected="attention, gemm or elementwise measurements")
    outcomes: dict[str, int] = {}
    for record in records:
        outcomes[record.outcome] = outcomes.get(record.outcome, 0) + 1
    isolation_s = elementwise["isolation_s"].value if elementwise else 0.0
    errors = {name: Errors.of(each) for name, each in elementwise_errors(records, based, isolation_s).items()}
    based = _with_gemm(based, gemm)
    products = gemm_errors(records, based)
    return Calibration(
        profile.name, passes, elementwise, gemm, fit_host(records), errors,
        {"efficiency": Errors.of(products)} if len(products) else {}, outcomes, _spread(records), list(machines),
        read_shares(records, profile), power, fresh_errors(fresh, _with_passes(based, passes)),
    )  # fmt: skip


def _fit(key: PassKey, samples: Sequence[AttentionSample], profile: HardwareProfile) -> FittedPass:
    tiling = TILINGS[key]
    fit = fit_pass(samples, tiling, profile)
    alone = [sample for sample in samples if not sample.worked_s]
    errors = np.array([predict_s(fit.curve, sample, profile) / sample.seconds - 1 for sample in alone])
    left_out = [held_out_errors(samples, tiling, profile, group) for group in (by_length, by_shape)]
    lengths, shapes = (None if each is None else Errors.of(each) for each in left_out)
    judged = left_out[0] if left_out[0] is not None else errors
    order = np.argsort(-np.abs(judged))[:5]
    worst = tuple((alone[place], float(judged[place])) for place in order)
    return FittedPass(key, fit, alone, Errors.of(errors), lengths, shapes, worst, left_out[0])


def _with_elementwise(profile: HardwareProfile, fitted: dict[str, Estimate]) -> HardwareProfile:
    """The profile with the fitted memory-bound kernels, which backward passes contain."""
    if not fitted:
        return profile
    shares = shares_of(fitted)
    costs = profile.elementwise.model_copy(
        update={
            "overhead_s": fitted["overhead_s"].value,
            "efficiency": profile.elementwise.efficiency | shares,
        }
    )
    return profile.model_copy(update={"elementwise": costs})


def _with_passes(profile: HardwareProfile, passes: Sequence[FittedPass]) -> HardwareProfile:
    """The profile with all fitted passes, each as that of its head dim."""
    kernels = dict(profile.kernels)
    for each in passes:
        name, direction, dim = each.key
        curve = kernels[name]
        own: AttentionCurve | Passes = curve.head_dims.get(str(dim), curve)
        both = {"forward": own.forward, "backward": own.backward, direction: each.fit.curve}
        kernels[name] = curve.model_copy(update={"head_dims": curve.head_dims | {str(dim): Passes(**both)}})
    return profile.model_copy(update={"kernels": kernels})


def _with_power(profile: HardwareProfile, power: PowerFit | None) -> HardwareProfile:
    if power is None:
        return profile
    gemm = profile.gemm.model_copy(update=power.products)
    return profile.model_copy(update={"power": power.control, "gemm": gemm})


def _spread(records: Sequence[CalibrationRecord]) -> tuple[float, float] | None:
    """Median and 95th percentile of the spread of samples, over attention calls that are long enough to slow down."""
    spreads = [
        each.spread for each in records if each.kind == "attention" and each.samples_s and each.median_s > LONG_S
    ]
    return (float(np.median(spreads)), float(np.quantile(spreads, 0.95))) if spreads else None


def _with_gemm(profile: HardwareProfile, fitted: dict[str, Estimate]) -> HardwareProfile:
    values = {name: each.value for name, each in fitted.items()}
    return profile.model_copy(update={"gemm": profile.gemm.model_copy(update=values)})


def _interval(estimate: Estimate) -> dict[str, float | None]:
    known = np.isfinite(estimate.half_width)
    return {"value": estimate.value, "half_width_90": estimate.half_width if known else None}


def _pass_summary(fitted: FittedPass) -> dict[str, Any]:
    kernel, direction, head_dim = fitted.key
    found: dict[str, Any] = {"kernel": kernel, "direction": direction, "head_dim": head_dim}
    found["parameters"] = {name: _interval(each) for name, each in fitted.fit.estimates.items()}
    found["efficiency"] = fitted.fit.curve.efficiency[0][1]
    for name in ("inside", "lengths", "shapes"):
        errors: Errors | None = getattr(fitted, name)
        found[name] = None if errors is None else vars(errors)
    return found

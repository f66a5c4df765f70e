"""How wrong a fit is on what it has not seen: whole sequence lengths, or whole shapes, left out.

Lengths (shapes) are dealt to five folds in order of size; each fold's measurements are predicted by a fit to the other
four, through the very function that the simulator prices with. So no prediction has a neighbour of its own length in
the fit, and the shortest and the longest lengths are extrapolated to.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cost_models.calibration.attention import AttentionSample, Tiling, fit_pass
from cost_models.hardware import AttentionCurve, HardwareProfile, KernelPass
from cost_models.kernels import estimate_attention_s

FloatArray = NDArray[np.float64]

FOLDS = 5


@dataclass(frozen=True)
class Errors:
    """Relative errors (predicted over measured, less one) of some predictions."""

    count: int
    median: float
    p90: float
    p95: float
    bias: float

    @staticmethod
    def of(errors: FloatArray) -> Errors:
        """Median, 90th and 95th percentile of their size, and their median."""
        median, p90, p95 = (float(each) for each in np.quantile(np.abs(errors), [0.5, 0.9, 0.95]))
        return Errors(len(errors), median, p90, p95, float(np.median(errors)))


def by_length(sample: AttentionSample) -> Hashable:
    """What is left out together: calls of one length."""
    return sample.length


def by_shape(sample: AttentionSample) -> Hashable:
    """What is left out together: calls of one batch and head count."""
    shape = sample.shape
    return shape.batch * shape.heads, shape.batch, shape.kv_heads


def held_out_errors(
    samples: Sequence[AttentionSample],
    tiling: Tiling,
    profile: HardwareProfile,
    group: Callable[[AttentionSample], Hashable],
) -> FloatArray | None:
    """Relative error of each call that was alone, predicted without its group; None where there are too few groups."""
    groups = sorted({group(sample) for sample in samples})  # type: ignore[type-var]
    if len(groups) < FOLDS:
        return None
    errors = np.full(len(samples), np.nan)
    for fold in range(FOLDS):
        out = set(groups[fold::FOLDS])
        kept = [sample for sample in samples if group(sample) not in out]
        curve = fit_pass(kept, tiling, profile).curve
        for place, sample in enumerate(samples):
            if group(sample) in out and not sample.worked_s:
                errors[place] = predict_s(curve, sample, profile) / sample.seconds - 1
    return errors[[not sample.worked_s for sample in samples]]


def predict_s(curve: KernelPass, sample: AttentionSample, profile: HardwareProfile) -> float:
    """Seconds of a sample's call as the simulator prices it, with one pass replaced."""
    kernel = AttentionCurve(
        max_head_dim=1024, dtypes=(sample.shape.dtype,), general_masks=False, forward=curve, backward=curve
    )
    with_curve = profile.model_copy(update={"kernels": {sample.kernel: kernel}})
    return estimate_attention_s(
        with_curve, sample.kernel, sample.call, sample.shape, sample.direction, worked_s=sample.worked_s
    )  # fmt: skip

"""A pass is found again from the times it predicts, and lengths that were left out are predicted."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from cost_models.calibration.attention import AttentionSample, Tiling, fit_pass
from cost_models.calibration.holdout import Errors, by_length, by_shape, held_out_errors, predict_s
from cost_models.hardware import KernelPass, load_hardware
from cost_models.kernels import AttentionShape
from cost_models.masks import KernelCall, Segment

PROFILE = load_hardware("h100-sxm")
LENGTHS = (512, 1024, 1536, 3072, 4096, 12288, 24576, 65536)


def a_pass(blocks: int) -> KernelPass:
    return KernelPass(
        tile_rows=128, tile_columns=128, blocks_per_sm=blocks, longest_first=False, in_order=True,
        alone_share=0.7 if blocks > 1 else 1.0, efficiency=((128, 0.6),), masked_tile_cost=1.4, prologue_s=2e-6,
        overhead_s=6e-6, boost_s=0.03, sustained_loss=0.1, sustained_s=2e-3, fitted_rows=(512, 65536),
        fitted_head_dims=(128,),
    )  # fmt: skip


def draw_samples(blocks: int, direction: str, noise: float = 0.0) -> list[AttentionSample]:
    """Times of the pass, with an outlier where there is noise."""
    curve, random, samples = a_pass(blocks), np.random.default_rng(0), []
    shapes = [
        AttentionShape(batch, heads, kv, 128, 128, "bf16") for batch, heads, kv in ((1, 8, 8), (2, 16, 4), (1, 40, 8))
    ]
    for length, shape, right in product(LENGTHS, shapes, (None, 0)):
        call = KernelCall((Segment(0, length, 0, length),), None, right)
        exact = predict_s(curve, AttentionSample(call, shape, direction, 1.0), PROFILE)
        samples.append(AttentionSample(call, shape, direction, exact * float(np.exp(random.normal(0, noise)))))
    if noise:
        odd = samples[20]
        samples[20] = AttentionSample(odd.call, odd.shape, odd.direction, 3 * odd.seconds)
    return samples


@pytest.mark.parametrize(("blocks", "direction"), [(1, "forward"), (2, "forward"), (1, "backward")])
def test_finds_the_pass_that_made_the_times(blocks: int, direction: str) -> None:
    found = fit_pass(draw_samples(blocks, direction), Tiling(128, 128, blocks), PROFILE).curve
    truth = a_pass(blocks)
    assert found.efficiency_at(128) == pytest.approx(0.6, rel=0.01)
    for name, tolerance in (("masked_tile_cost", 0.05), ("prologue_s", 0.2), ("overhead_s", 0.2), ("alone_share", 0.05),
                            ("sustained_loss", 0.1), ("boost_s", 0.15)):  # fmt: skip
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=tolerance), name


def test_left_out_lengths_and_shapes_are_predicted_in_spite_of_noise() -> None:
    samples = draw_samples(1, "forward", noise=0.005)
    for group in (by_length, by_shape):
        errors = held_out_errors(samples, Tiling(128, 128, 1), PROFILE, group)
        if group is by_shape:
            assert errors is None  # three shapes are too few for five folds
            continue
        assert errors is not None
        found = Errors.of(errors)
        assert found.median < 0.01 and np.sort(np.abs(errors))[-2] < 0.1


def test_held_out_means_held_out() -> None:
    """A length whose times are all wrong does not bend its own prediction."""
    samples = draw_samples(1, "forward")
    wrong = [AttentionSample(s.call, s.shape, s.direction, s.seconds * (2 if s.length == 4096 else 1)) for s in samples]
    errors = held_out_errors(wrong, Tiling(128, 128, 1), PROFILE, by_length)
    assert errors is not None
    off = [error for error, sample in zip(errors, wrong, strict=True) if sample.length == 4096]
    assert np.allclose(off, -0.5, atol=0.02)

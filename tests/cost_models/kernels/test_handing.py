"""When kernels hand out blocks: a wave before their end, and not at all where they leave SMs free."""

from __future__ import annotations

import pytest

from cost_models.hardware import load_hardware
from cost_models.kernels import (
    AttentionShape,
    AttentionTimes,
    attention_handing,
    estimate_attention_s,
    estimate_before_s,
    estimate_gemm_s,
    gemm_handing,
)
from cost_models.kernels.gemm import count_waves
from cost_models.masks import KernelCall, Segment

A100 = load_hardware("a100-80")
SHAPE = AttentionShape(1, 32, 8, 128, 128, "bf16")


def call(rows: int, keys: int) -> KernelCall:
    return KernelCall((Segment(0, rows, 0, keys),), None, None)


def test_forward_attention_hands_out_until_its_last_wave() -> None:
    waves = 8192 * 32 / 128 / (108 * 2)
    ((begin, until),) = attention_handing(AttentionTimes(A100, "flash2", SHAPE, "forward"), [call(8192, 8192)])
    assert begin == 0 and until == pytest.approx(1 - 1 / waves)


def test_a_kernel_of_one_wave_waits_for_nobody() -> None:
    few = AttentionShape(1, 2, 2, 128, 128, "bf16")
    assert attention_handing(AttentionTimes(A100, "flash2", few, "forward"), [call(4096, 4096)]) == ()


def test_calls_follow_one_another() -> None:
    calls = [call(8192, 8192), call(8192, 4096)]
    (first, until), (second, last) = attention_handing(AttentionTimes(A100, "flash2", SHAPE, "forward"), calls)
    times = [estimate_attention_s(A100, "flash2", each, SHAPE, "forward") for each in calls]
    assert second == pytest.approx(times[0] / sum(times)) and first == 0 < until < second < last < 1


def test_backward_begins_with_a_kernel_of_its_own_behind_which_communication_starts() -> None:
    whole = call(8192, 8192)
    (_, gap), (main, last) = attention_handing(AttentionTimes(A100, "flash2", SHAPE, "backward"), [whole])
    before = estimate_before_s(A100, (whole,), SHAPE, "backward")
    total = estimate_attention_s(A100, "flash2", whole, SHAPE, "backward")
    assert gap == main == pytest.approx(before / total) and gap < 0.1 < last < 1


def test_products_hand_out_until_their_last_wave() -> None:
    waves = count_waves(A100, 8192, 4096, 4096)
    ((begin, until),) = gemm_handing(A100, [(8192, 4096, 4096)], "bf16")
    assert begin == 0 and until == pytest.approx(1 - 1 / waves) and waves > 1
    assert gemm_handing(A100, [(128, 128, 4096)], "bf16") == ()


def test_products_one_after_the_other() -> None:
    sizes = [(8192, 4096, 4096), (8192, 4096, 8192)]
    first, second = gemm_handing(A100, sizes, "bf16")
    times = [estimate_gemm_s(A100, *size, "bf16") for size in sizes]
    assert second[0] == pytest.approx(times[0] / sum(times)) and first[1] < second[0] < second[1] < 1

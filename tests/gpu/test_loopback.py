"""Schedules with a GPU's kernels, all ranks on one GPU, against dense attention in float64."""

from __future__ import annotations

import pytest
import torch

from traces.errors import InputError
from validators.kernels import why_unavailable
from validators.validation.loopback_check import MASKS, SCHEDULES, Check, Workload, is_right, run_check

KERNELS = ("flash2", "cudnn", "triton")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_equals_dense_attention(schedule: str, mask: str, kernel: str) -> None:
    if why_unavailable(kernel):
        pytest.skip(f"no kernel {kernel}")
    number = SCHEDULES.index(schedule) + MASKS.index(mask)
    workload = Workload(mask, 3072, 8, (8, 4)[number % 2], (64, 128)[number // 2 % 2], 1 + number % 2, 4.0)
    check = Check(workload, schedule, 1 if schedule == "flash" else 4, kernel)
    try:
        errors = run_check(check, torch.device("cuda"), number)
    except InputError as refusal:
        pytest.skip(refusal.message)
    assert is_right(errors), errors

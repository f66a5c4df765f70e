"""The checks that run on GPUs, with the kernel for CPUs on short sequences; and that they see a wrong merge."""

from __future__ import annotations

import pytest
import torch

from validators.validation import loopback_check
from validators.validation.loopback_check import MASKS, SCHEDULES, Check, Workload, is_right, list_checks, run_check

CPU = torch.device("cpu")
SHORT = {"1024+1536+512": "64+96+32", "700": "50", "600": "40", "300": "20", "200": "10"}


def short(mask: str) -> str:
    for long, replacement in SHORT.items():
        mask = mask.replace(long, replacement)
    return mask


@pytest.mark.parametrize("number", range(0, len(SCHEDULES), 2))
def test_schedules_are_right_in_bf16(number: int) -> None:
    mask = short(MASKS[number % 2])
    check = Check(Workload(mask, 192, 8, 4, 64, 1, 4.0), SCHEDULES[number], 1 if number == 0 else 4, "cpu")
    assert is_right(run_check(check, CPU))


@pytest.mark.parametrize("number", [0, 1])
def test_kept_scores_are_judged_by_a_reference_that_keeps_them(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not by a reference that does not, from which they differ by more than the tolerance."""
    check = Check(Workload(short(MASKS[number]), 192, 8, 4, 64, 1, 8.0), "rsa", 4, "cpu")
    assert is_right(run_check(check, CPU))
    monkeypatch.setattr(loopback_check, "KEEPS_SCORES", ())
    assert not is_right(run_check(check, CPU))


def test_a_merge_that_ignores_the_lse_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def average(o: torch.Tensor, lse: torch.Tensor, part: torch.Tensor, part_lse: torch.Tensor) -> None:
        o += (part - o) / 2
        torch.logaddexp(lse, part_lse, out=lse)

    check = Check(Workload("full", 192, 8, 4, 64, 1, 4.0), "ring", 4, "cpu")
    monkeypatch.setattr(loopback_check, "merge_into", average)
    errors = run_check(check, CPU)
    assert errors["o"] > 0.1
    assert not is_right(errors)


def test_the_list_has_every_combination() -> None:
    checks = list(list_checks(("flash2", "cudnn")))
    seen = {(check.schedule, check.workload.mask, check.workload.kv_heads, check.kernel) for check in checks}
    assert len(seen) >= len(SCHEDULES) * len(MASKS) * 2 * 2
    assert {check.workload.q_scale for check in checks} == {1.0, 4.0}

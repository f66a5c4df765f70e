"""What launches share is put together as the executors do it: the same parts and runs, priced by their bytes."""

from __future__ import annotations

import pytest

from cost_models.hardware import load_hardware
from cost_models.kernels import (
    AttentionShape,
    attention_workspace_bytes,
    estimate_calls_s,
    launches_apart,
    put_together_bytes,
    put_together_launches,
)
from cost_models.kernels.put_together import estimate_put_together_s, find_shared, join_slices
from cost_models.masks import MAX_LAUNCHES, KernelCall, Segment
from validators.executors.local import covered_slices

SHAPE = AttentionShape(2, 8, 2, 128, 128, "bf16")
GPU = load_hardware("h100-sxm")
FULL = KernelCall((Segment(0, 1024, 0, 512),), None, None)
DIAGONAL = KernelCall((Segment(512, 1024, 512, 1024), Segment(1536, 2048, 1024, 1536)), None, 0)
APART = KernelCall((Segment(1024, 2048, 1024, 2048),), None, 0)


@pytest.mark.parametrize("side", ["q", "k"])
def test_parts_and_runs_are_the_executors(side: str) -> None:
    launches = [FULL, DIAGONAL, APART]
    parts = [part for each in launches for part in covered_slices([each], side)]
    runs = join_slices(parts)
    found = find_shared(launches, side)
    assert (found.parts, found.part_rows) == (len(parts), sum(b - a for a, b in parts))
    assert (found.runs, found.rows) == (len(runs), sum(b - a for a, b in runs))


def test_nothing_is_put_together_where_nothing_is_shared() -> None:
    assert estimate_put_together_s(GPU, [FULL, APART], SHAPE, "forward") == 0
    assert put_together_launches([FULL, APART], SHAPE, "backward") == 0
    assert put_together_bytes([FULL, APART], SHAPE, "backward", 77) == 77


def test_time_and_memory_by_hand() -> None:
    """1024 and 2 x 512 rows of 2 x 8 x 128 values in one run of 1024 and one of 512; keys are shared by none."""
    launches, width = [FULL, DIAGONAL], 2 * 8 * 128
    whole, parts = 1536 * width, 2048 * width
    share, rate = GPU.elementwise.efficiency, GPU.hbm_bytes_per_s
    moved = 4 * whole / share["fill"] + 10 * parts / share["merge"] + 6 * whole / share["copy"]
    want = moved / rate + (3 + 2 * 3) * GPU.elementwise.overhead_s
    assert estimate_put_together_s(GPU, launches, SHAPE, "forward") == pytest.approx(want)
    assert put_together_launches(launches, SHAPE, "forward") == 9
    assert put_together_launches(launches, SHAPE, "backward") == 3 + 2 * 2
    assert put_together_bytes(launches, SHAPE, "forward", 0) == 2 * parts + 4 * whole
    assert put_together_bytes(launches, SHAPE, "backward", 10**10) == 10**10 + 2 * (parts - whole)


def test_only_calls_of_our_executors_pay_for_it() -> None:
    """Other software's kernels add to one result; cuDNN's launches have results of their own wherever it is used."""
    launches = (FULL, DIAGONAL)
    alone, ours = (
        [estimate_calls_s(profile, kernel, launches, SHAPE, "forward") for kernel in ("flash2", "cudnn")]
        for profile in (GPU, GPU.isolated())
    )
    extra_s = estimate_put_together_s(GPU, launches_apart(GPU.kernel("flash2"), launches), SHAPE, "forward")
    assert ours[0] - alone[0] == pytest.approx(extra_s)
    assert ours[1] == pytest.approx(alone[1])
    assert attention_workspace_bytes("flash2", FULL, SHAPE) > 0


def test_calls_that_are_one_launch_share_nothing() -> None:
    many = [KernelCall((Segment(0, 128, 128 * i, 128 * i + 128),), None, None) for i in range(MAX_LAUNCHES + 1)]
    assert len(launches_apart(GPU.kernel("flash2"), many)) == len(many)
    assert len(launches_apart(GPU.kernel("triton"), many)) == 1

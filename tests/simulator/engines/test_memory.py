"""The curve of memory reaches the peak that is reported."""

from __future__ import annotations

import pytest

import attnsim


@pytest.mark.parametrize("schedule", ["ring", "ulysses", "apb", "allgather"])
def test_the_curve_reaches_the_peak(schedule: str) -> None:
    result = attnsim.simulate(
        schedule=schedule, model="llama-3.1-8b", seq_len="128k", gpus=8, topology="dgx-h100", engine="maxplus"
    )
    assert result.memory_curve is not None
    assert max(used for _, used in result.memory_curve) == result.peak_memory_bytes

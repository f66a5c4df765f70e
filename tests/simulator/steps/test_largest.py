"""The longest sequence that fits: at the edge, and longer with everything that saves memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cost_models.models import load_model
from simulator.request import SimulationRequest
from simulator.simulate import simulate
from simulator.steps.largest import granule, largest_seq_len, peak_memory
from traces.errors import InputError

REQUEST = SimulationRequest(
    model=replace(load_model("llama-3.1-8b"), layers=2), seq_len=1,
    gpus=8, topology="dgx-h100", layers="model", schedule="ring:partition=striped",
    zero=3, loss_chunks=16, timeline=False,
)  # fmt: skip


def longest(**options: Any) -> int:
    return largest_seq_len(replace(REQUEST, **options)).seq_len


def test_it_fits_and_what_is_a_little_longer_does_not() -> None:
    found = largest_seq_len(REQUEST)
    assert found.seq_len % granule(REQUEST) == 0
    assert peak_memory(REQUEST, found.seq_len) == found.peak_memory_bytes <= found.room_bytes
    assert found.next_peak_bytes is not None and found.next_peak_bytes > found.room_bytes
    longer = -(-found.seq_len * 65 // 64 // granule(REQUEST)) * granule(REQUEST) + granule(REQUEST)
    assert peak_memory(REQUEST, longer) > found.room_bytes


def test_what_is_kept_decides() -> None:
    lengths = [longest(checkpoint=how) for how in ("none", "attention", "sequence", "full")]
    assert lengths == sorted(lengths) and len(set(lengths)) == 4
    assert longest(checkpoint="full", loss_chunks=None) < lengths[-1]
    assert longest(checkpoint="full", optimizer="adamw-8bit") > lengths[-1]


def test_simulate_takes_the_longest() -> None:
    request = replace(REQUEST, checkpoint="full", gpus=2)
    found = largest_seq_len(request)
    result = simulate(replace(request, seq_len="max"))
    assert result.inputs["seq_len"] == found.seq_len
    assert result.fits and result.peak_memory_bytes == found.peak_memory_bytes


def test_nothing_fits() -> None:
    with pytest.raises(InputError, match="not even .* tokens fit"):
        longest(model="llama-3.1-405b")


def test_the_allocators_slack_is_taken_off_the_room() -> None:
    tight, loose = (largest_seq_len(replace(REQUEST, allocator_slack=slack)) for slack in (1.0, 1.25))
    assert loose.room_bytes == pytest.approx(tight.room_bytes / 1.25)
    assert loose.seq_len < tight.seq_len
    assert largest_seq_len(REQUEST).room_bytes == pytest.approx(tight.room_bytes / 1.08)

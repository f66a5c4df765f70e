"""The longest sequence whose step fits in memory.

Memory grows with the sequence, so lengths are bisected: multiples of a granule that every split divides (2 chunks per
context parallel rank, tokens per tensor parallel rank, one sequence's 1024 tokens). Each length is recorded into
`Memory` only, with kernels' workspace; nothing is timed. What fits is at most the profile's usable memory (the device's
less what driver, CUDA context and NCCL take: ``usable_fraction``) over the allocator's slack.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from cost_models.kernels import choose_kernel
from simulator.costing import CostModel
from simulator.engines.memory import Memory
from simulator.request import SimulationRequest
from simulator.schedules import parse_schedule
from simulator.steps.record import subject_of
from traces.errors import InputError

LONGEST = 2**28
"""Tokens beyond which nothing is tried."""


@dataclass(frozen=True)
class Largest:
    """The longest sequence that fits.

    Attributes
    ----------
    seq_len : its tokens, over all ranks.
    peak_memory_bytes : of the fullest rank, then.
    room_bytes : memory for tensors.
    next_peak_bytes : at the next length, which does not fit; None where the longest that is tried does.
    """

    seq_len: int
    peak_memory_bytes: int
    room_bytes: int
    next_peak_bytes: int | None


def largest_seq_len(request: SimulationRequest) -> Largest:
    """Bisect the sequence length; the request's own is not used.

    Raises
    ------
    InputError
        Where the request cannot run, or not even the shortest sequence fits.
    """
    step = granule(request)
    room, shortest = _room(request), peak_memory(request, step)
    if shortest > room:
        raise InputError(f"not even {step} tokens fit", got=f"{shortest} bytes", expected=f"at most {room} bytes",
                         remedy="use more GPUs, a higher zero stage or more checkpointing")  # fmt: skip
    low, low_peak, high, high_peak = 1, shortest, LONGEST // step, None
    while high - low > max(1, low // 64):
        middle = min(2 * low, (low + high) // 2) if high_peak is None else (low + high) // 2
        peak = peak_memory(request, middle * step)
        if peak <= room:
            low, low_peak = middle, peak
        else:
            high, high_peak = middle, peak
    return Largest(low * step, low_peak, room, high_peak)


def granule(request: SimulationRequest) -> int:
    """Tokens of which every length tried is a multiple."""
    others = request.tp * request.dp * request.pp
    cp = max(1, request.gpus // others)
    return math.lcm(2 * cp * request.tp, 1024)


def peak_memory(request: SimulationRequest, seq_len: int) -> int:
    """Bytes of the fullest rank, for a sequence of some length."""
    resolved = replace(request, seq_len=seq_len).resolve()
    if resolved.schedule is None:
        raise InputError("no schedule is named", remedy="name a schedule")
    subject = subject_of(parse_schedule(resolved.schedule), resolved)
    profile = resolved.profile
    costs = CostModel(resolved.topology, profile, choose_kernel(profile, request.kernel, resolved.workload))
    memory = Memory(subject.setup.n_ranks, costs.workspace_bytes)
    subject.record(memory)
    return int(memory.peak_bytes.max())


def _room(request: SimulationRequest) -> int:
    return replace(request, seq_len=granule(request)).resolve().room_bytes

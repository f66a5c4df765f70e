"""Copies between the GPU's memory and pinned memory of the host, by the copy engines."""

from __future__ import annotations

from itertools import product
from typing import cast

import torch

from validators.bench.plan import Case
from validators.bench.timing import Timer

DIRECTIONS = ("to_host", "to_device")
SIZES = (64 << 10, 1 << 20, 16 << 20, 128 << 20, 1 << 30)


def copy_cases() -> list[Case]:
    """Both directions over sizes."""
    return [Case("host_copy", {"direction": direction, "bytes": size}, 1)
            for direction, size in product(DIRECTIONS, SIZES)]  # fmt: skip


def run_copy(case: Case, timer: Timer) -> list[float]:
    """Samples in seconds."""
    size = cast(int, case.parameters["bytes"])
    host = torch.empty(size, dtype=torch.uint8, pin_memory=timer.device.type == "cuda").fill_(1)
    device = torch.ones(size, dtype=torch.uint8, device=timer.device)
    target, source = (host, device) if case.parameters["direction"] == "to_host" else (device, host)
    return timer.measure(lambda: target.copy_(source, non_blocking=True))

"""What the host needs to issue one operation, whatever the GPU does: tiny tensors, wall clock around the call.

``start`` is another thing: a forward and a backward call on a GPU that has been idle, between two events, as an
isolated call of the cross-check begins. What it takes beyond issuing and running them warm is what waking up takes:
caches of the host's that other work has filled (``collected``: by Python's garbage collector), and the GPU's clocks.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import torch

from cost_models.masks import KernelCall, Segment
from validators.bench.plan import Case
from validators.bench.timing import Timer
from validators.kernels import build_attention_kernel
from validators.kernels.fused import merge_into, row_dot

TOKENS, HEADS, DIM = 128, 4, 64
STARTS, IDLE_S = 31, 0.005


def run_host(case: Case, timer: Timer) -> list[float]:
    """Seconds of each call on the host."""
    if case.parameters["what"] == "start":
        return _starts(str(case.parameters["kernel"]), timer, collected=bool(case.parameters["collected"]))
    if case.parameters["what"] == "attention":
        return timer.issue(_attention(str(case.parameters["kernel"]), str(case.parameters["direction"]), timer.device))
    return timer.issue(_small(str(case.parameters["what"]), timer.device))


def _starts(kernel: str, timer: Timer, *, collected: bool) -> list[float]:
    calls = [_attention(kernel, direction, timer.device) for direction in ("forward", "backward")]
    samples = []
    for _ in range(STARTS):
        timer.synchronize()
        if collected:
            gc.collect()
        end = time.perf_counter() + IDLE_S
        while time.perf_counter() < end:
            pass
        samples.append(timer.elapsed(lambda: [call() for call in calls]))
    return samples[1:]


def _attention(kernel: str, direction: str, device: torch.device) -> Callable[[], object]:
    attention, call = build_attention_kernel(kernel), KernelCall((Segment(0, TOKENS, 0, TOKENS),), None, 0)
    q, k, v, do = (torch.randn(1, TOKENS, HEADS, DIM, device=device, dtype=torch.bfloat16) for _ in range(4))
    o, lse = attention.forward(q, k, v, call)
    if direction == "forward":
        return lambda: attention.forward(q, k, v, call)
    return lambda: attention.backward(q, k, v, do, lse, o, call, delta=False)


def _small(what: str, device: torch.device) -> Callable[[], object]:
    wide = torch.randn(1, TOKENS, HEADS, DIM, device=device)
    narrow = wide.to(torch.bfloat16)
    lse, other = (torch.randn(1, HEADS, TOKENS, device=device) for _ in range(2))
    square = torch.randn(DIM, DIM, device=device, dtype=torch.bfloat16)
    calls: dict[str, Callable[[], object]] = {
        "merge": lambda: merge_into(wide, lse, narrow, other),
        "row_dot": lambda: row_dot(narrow, narrow, lse),
        "accumulate": lambda: wide.add_(narrow),
        "cast": lambda: narrow.copy_(wide),
        "gemm": lambda: square @ square,
    }
    return calls[what]

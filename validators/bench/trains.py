"""Work without rests: what the power limit takes, from which kernels, when, and how long a rest undoes it.

A case lists its kernels in turns, ``gemm 8192x8192x8192 + flash2 backward 1x32/8x128 8192 causal``: it is one clock
that falls for all of them. Samples are those of the turns in order, for ``seconds`` from a rested GPU; with
``before_s`` the GPU has done the same for so long, and rested for ``rest_s``.

``in_a_row`` kernels that are launched one after the other are one sample: what memory-bound kernels need besides their
bytes in a stream of others, where the next begins as soon as the one before it ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial

import torch

from traces.errors import InputError
from validators.bench.attention import AttentionBench
from validators.bench.gemm import prepare_gemm
from validators.bench.plan import MASKS, Case, attention_case
from validators.bench.timing import Call, Timer

PRODUCTS = ("gemm 8192x28672x4096", "gemm 16384x4096x14336", "gemm 8192x5120x13824")
LAYER = "gemm 16384x6144x4096 + {} + gemm 16384x28672x4096 + gemm 16384x4096x14336"
MIXED = (
    LAYER.format("flash2 forward 2x32/8x128 8192 causal + flash2 backward 2x32/8x128 8192 causal"),
    LAYER.format("cudnn forward 2x32/8x128 8192 causal + cudnn backward 2x32/8x128 8192 causal"),
    LAYER.format("add 134217728"),
)
LONG_S = 2.4
LONG = (
    "cudnn forward 1x32/8x128 32768 causal", "cudnn backward 1x32/8x128 16384 causal",
    "flash2 forward 1x32/8x128 16384 causal", "flash2 backward 1x32/8x128 16384 causal",
    "cudnn backward 1x32/8x64 16384 full", "flash2 backward 1x32/8x64 16384 full", "gemm 16384x8192x8192",
)  # fmt: skip
RESTS_S = (0.01, 0.03, 0.1, 0.3, 1.0)
ROW, ROW_ELEMENTS = 20, (1 << 10, 1 << 22, 1 << 26)
SHORT = ("add", "fill", "cast")

_ATTENTION = re.compile(r"(\w+) (forward|backward) (\d+)x(\d+)/(\d+)x(\d+) (\d+) (full|causal)")


def train_cases() -> list[Case]:
    """Trains of products, of whole layers, long ones, rests, and short kernels in a row."""
    cases = [Case("train", {"parts": parts, "seconds": 1.0}, 1) for parts in (*PRODUCTS, *MIXED)]
    cases += [Case("train", {"parts": parts, "seconds": LONG_S}, 1) for parts in LONG]
    cases += [
        Case("train", {"parts": parts, "seconds": 0.1, "before_s": 0.6, "rest_s": rest_s}, 1)
        for parts in (PRODUCTS[0], LONG[1]) for rest_s in RESTS_S
    ]  # fmt: skip
    return cases + [
        Case("train", {"parts": f"{what} {count}", "in_a_row": ROW}, 1) for what in SHORT for count in ROW_ELEMENTS
    ]


def run_train(case: Case, timer: Timer, attention: AttentionBench) -> tuple[list[float], dict[str, float]]:
    """Samples in seconds, and the errors of the parts' checks.

    Raises
    ------
    WrongResultError
        Where a part computes something else; nothing is timed then.
    """
    p, errors = case.parameters, dict[str, float]()
    calls = list(_calls(str(p["parts"]).split(" + "), timer, attention, errors))
    if "in_a_row" in p:
        count = int(p["in_a_row"] or 1)
        return [sample / count for sample in timer.measure(partial(_repeat, calls[0], count))], errors
    if "before_s" in p:
        timer.measure_train(calls, float(p["before_s"] or 0))
        timer.rest(float(p["rest_s"] or 0))
    return timer.measure_train(calls, float(p["seconds"] or 0), settle="before_s" not in p), errors


def _repeat(call: Call, count: int) -> None:
    for _ in range(count):
        call()


def _calls(parts: Sequence[str], timer: Timer, attention: AttentionBench, errors: dict[str, float]) -> Iterator[Call]:
    for number, part in enumerate(parts):
        call, found = _prepared(part, timer.device, attention)
        errors |= {f"{number}.{name}": error for name, error in found.items()}
        yield call


def _prepared(part: str, device: torch.device, attention: AttentionBench) -> tuple[Call, dict[str, float]]:
    name, rest = part.split(" ", 1)
    if name == "gemm":
        m, n, k = (int(each) for each in rest.split("x"))
        return prepare_gemm(Case("gemm", {"m": m, "n": n, "k": k, "dtype": "bf16"}), device)
    if name in SHORT:
        return _memory_bound(name, int(rest), device), {}
    found = _ATTENTION.fullmatch(part)
    if not found:
        raise InputError("unknown part of a train", got=part)
    kernel, direction, mask = found[1], found[2], found[8]
    batch, heads, kv_heads, head_dim, rows = (int(found[place]) for place in range(3, 8))
    attention.forget()
    return attention.prepare(
        attention_case(kernel, direction, (batch, heads, kv_heads), head_dim, rows, rows, MASKS[mask])
    )


def _memory_bound(name: str, count: int, device: torch.device) -> Call:
    a, b = (torch.ones(count, dtype=torch.bfloat16, device=device) for _ in range(2))
    if name == "add":
        return partial(torch.add, a, b, out=b.clone())
    if name == "fill":
        return a.zero_
    return partial(b.float().copy_, a)

"""Every schedule with a GPU's own kernels, all its ranks on one GPU, against dense attention in float64.

    python -m validators.validation.loopback_check --out checks.jsonl --seconds 200

Inputs are drawn anew for every workload and rounded to the working dtype; the reference is of the rounded ones. With Q
times 4 a few keys have nearly all the weight: a merge that gets an LSE wrong is then off by tens of percents, where
with plain normal inputs it is off by a few. Errors are ||got - want|| / ||want|| of O, LSE, dQ, dK and dV, each.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from itertools import product
from pathlib import Path

import torch

from cost_models.masks import parse_mask
from cost_models.workload import AttentionWorkload
from simulator.program.setup import Setup
from simulator.recording import build_program, check_program, default_pass
from simulator.schedules import parse_schedule
from traces.errors import InputError
from validators.executors.loopback import Loopback
from validators.executors.shards import Globals, draw_inputs
from validators.executors.store import DTYPES
from validators.kernels import KERNEL_NAMES, build_attention_kernel, why_unavailable
from validators.kernels.fused import merge_into
from validators.reference import reference, reference_of_stored_scores, relative_error

TOLERANCE = {"o": 1e-2, "lse": 2e-3, "dq": 2e-2, "dk": 2e-2, "dv": 2e-2}
"""bf16: one kernel is off by 2e-3, partial results merged in fp32 by as much, sums of P bf16 gradients by more."""
KEEPS_SCORES = ("rsa",)
"""Schedules that keep scores in the working dtype: judged by a reference that keeps them, too."""

SCHEDULES = (
    "flash", "ring", "ring:partition=contiguous,grad=bf16", "ring:partition=striped", "ulysses", "burst",
    "burst:ring=double,grad=fp32", "allgather", "usp:ulysses=2", "loongtrain:head=2,window=2", "lightseq", "magi",
    "hybrid-cp", "tp", "tp:version=3", "rsa",
)  # fmt: skip
MASKS = (
    "causal", "full", "sliding-window:window=700,causal=true", "document:lengths=1024+1536+512,causal=true",
    "sliding-window:window=700", "document:lengths=1024+1536+512", "share-question:lengths=1024+1536+512",
    "prefix-causal:prefix=600", "global-sliding:window=300,global=200",
)  # fmt: skip
SEQ_LEN, LONG = 3072, 16384


@dataclass(frozen=True)
class Workload:
    """What is computed, whatever the schedule."""

    mask: str
    seq_len: int
    heads: int
    kv_heads: int
    head_dim: int
    batch: int
    q_scale: float
    dtype: str = "bf16"

    @property
    def attention(self) -> AttentionWorkload:
        """As schedules take it."""
        mask = parse_mask(self.mask, self.seq_len)
        return AttentionWorkload(
            self.batch, self.seq_len, self.heads, self.kv_heads, self.head_dim, self.head_dim, self.dtype, mask
        )


@dataclass(frozen=True)
class Check:
    """A schedule with a kernel on a workload."""

    workload: Workload
    schedule: str
    ranks: int
    kernel: str

    @property
    def setup(self) -> Setup:
        """Two nodes where the schedule is for several."""
        nodes = 2 if "double" in self.schedule or "loongtrain" in self.schedule else 1
        return Setup(self.workload.attention, self.ranks, self.ranks // nodes)


def list_workloads() -> Iterator[Workload]:
    """Masks x GQA x scale of Q, and one long sequence."""
    for mask, kv_heads, q_scale in product(MASKS, (8, 2), (4.0, 1.0)):
        yield Workload(mask, SEQ_LEN, 8, kv_heads, 128 if kv_heads == 8 else 64, 1 if kv_heads == 8 else 2, q_scale)
    yield Workload("causal", LONG, 4, 4, 128, 1, 4.0)


def list_checks(kernels: tuple[str, ...]) -> Iterator[Check]:
    """Every schedule x mask x GQA x kernel; the plain scale of Q with causal masks only."""
    for workload in list_workloads():
        if workload.q_scale == 1.0 and workload.mask != "causal":
            continue
        for schedule, kernel in product(SCHEDULES, kernels):
            if workload.seq_len == LONG and schedule == "rsa":
                continue
            yield Check(workload, schedule, 1 if schedule == "flash" else 4, kernel)


def run_check(check: Check, device: torch.device, seed: int = 0) -> Mapping[str, float]:
    """Errors of one check.

    Raises
    ------
    InputError
        Where the schedule or the kernel does not take the workload.
    """
    schedule = parse_schedule(check.schedule)
    check_program(schedule, check.setup, default_pass(schedule))
    inputs, want = _reference(check.workload, str(device), seed, check.schedule in KEEPS_SCORES)
    program = build_program(schedule, check.setup)
    looped = Loopback(
        program, inputs, build_attention_kernel(check.kernel), device=device, dtype=None,
        merge=merge_into,
    )  # fmt: skip
    program.replay(looped)
    return {name: relative_error(looped.results[name], want[name]) for name in looped.results}


def is_right(errors: Mapping[str, float]) -> bool:
    """Whether all five results are within their tolerance."""
    return set(errors) == set(TOLERANCE) and all(errors[name] <= limit for name, limit in TOLERANCE.items())


@lru_cache(maxsize=2)
def _reference(workload: Workload, device: str, seed: int, keeps_scores: bool) -> tuple[Globals, Globals]:
    """Inputs as the working dtype has them, in float64, and dense attention of them."""
    setup = Setup(workload.attention, 1, 1)
    drawn = draw_inputs(setup, seed, q_scale=workload.q_scale, device=device)
    inputs = {name: tensor.to(DTYPES[workload.dtype]).double() for name, tensor in drawn.items()}
    if keeps_scores:
        return inputs, reference_of_stored_scores(inputs, workload.attention.mask, DTYPES[workload.dtype])
    return inputs, reference(inputs, workload.attention.mask)


def main() -> int:
    """Run all checks, or as many as fit in the time; 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="added to; what is there is not checked again")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--schedules", nargs="*", default=SCHEDULES)
    parser.add_argument("--kernels", nargs="*", default=[name for name in KERNEL_NAMES if name not in ("cpu", "dense")])
    arguments = parser.parse_args()
    kernels = tuple(name for name in arguments.kernels if not why_unavailable(name))
    end, counts = time.monotonic() + arguments.seconds, {"right": 0, "wrong": 0, "refused": 0, "not run": 0}
    known = _known(arguments.out)
    with arguments.out.open("a") as file:
        for seed, check in enumerate(list_checks(kernels)):
            if check.schedule not in arguments.schedules or json.dumps(asdict(check)) in known:
                continue
            if time.monotonic() > end:
                counts["not run"] += 1
                continue
            outcome = _outcome(check, torch.device(arguments.device), seed // (len(SCHEDULES) * len(kernels)))
            counts[str(outcome["outcome"])] += 1
            file.write(json.dumps({**asdict(check), **outcome}) + "\n")
            file.flush()
            if outcome["outcome"] == "wrong":
                print("wrong:", check, outcome)
    print("loopback checks:", ", ".join(f"{count} {name}" for name, count in counts.items()))
    return 1 if counts["wrong"] else 0


def _known(path: Path) -> set[str]:
    """Checks that a file has, as text."""
    if not path.exists():
        return set()
    names = [field.name for field in fields(Check)]
    lines = map(json.loads, path.read_text().splitlines())
    return {json.dumps({name: line[name] for name in names}) for line in lines}


def _outcome(check: Check, device: torch.device, seed: int) -> dict[str, object]:
    try:
        errors = run_check(check, device, seed)
    except InputError as error:
        return {"outcome": "refused", "detail": error.message}
    except Exception as error:  # a kernel that fails is a finding, and no reason not to run the others
        return {"outcome": "wrong", "detail": f"{type(error).__name__}: {error}"[:300]}
    return {"outcome": "right" if is_right(errors) else "wrong", "errors": dict(errors)}


if __name__ == "__main__":
    raise SystemExit(main())

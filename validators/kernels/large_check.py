"""Whether attention kernels are right on tensors of more than 2^31 elements, each case in a process of its own.

    python -m validators.kernels.large_check --out FILE [--kernels flash2 cudnn triton] [--seconds S]

An index that overflows 32 bits reads or writes elsewhere. An illegal access ends the process; anything else shows in
the last rows, which are compared with the same kernel on those rows alone. Q is just above or just below that size by
many batch rows (``batch``), or by one long one under a causal window (``length``).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from cost_models.masks import KernelCall, Segment
from validators.kernels import build_attention_kernel
from validators.reference import relative_error

HEADS, DIM, ROWS, LIMIT = 16, 128, 512, 2**31
WINDOW, KEPT = 255, 1024
TOLERANCE = 1e-2
CASES = tuple(product(("batch", "length"), ("above", "below"), ("forward", "backward", "delta")))


def check(kernel: str, form: str, size: str, direction: str) -> dict[str, float]:
    """Largest relative error of each result in the last rows.

    Raises
    ------
    RuntimeError
        Where the device says that an access was illegal.
    """
    count = LIMIT // (ROWS * HEADS * DIM) + (2 if size == "above" else -2)
    shape = (count, ROWS, HEADS, DIM) if form == "batch" else (1, count * ROWS, HEADS, DIM)
    q, k, v, do = (torch.empty(shape, dtype=torch.bfloat16, device="cuda").normal_() for _ in range(4))
    whole = _call(kernel, q, k, v, do, form, direction)
    if form == "batch":
        tail = [each[-2:].clone() for each in (q, k, v, do)]
    else:
        tail = [each[:, -2 * KEPT :].clone() for each in (q, k, v, do)]
    alone = _call(kernel, *tail, form, direction)
    found = {}
    for name, mine, other in zip(("o", "dq", "dk", "dv"), whole, alone, strict=False):
        rows, want = (mine[-2:], other) if form == "batch" else (mine[:, -KEPT:], other[:, -KEPT:])
        found[name] = relative_error(rows.double().cpu(), want.double().cpu())
    return found


def _call(kernel: str, q: Tensor, k: Tensor, v: Tensor, do: Tensor, form: str, direction: str) -> list[Tensor]:
    attention = build_attention_kernel(kernel)
    call = KernelCall((Segment(0, q.shape[1], 0, k.shape[1]),), WINDOW if form == "length" else None, 0)
    o, lse = attention.forward(q, k, v, call)
    if direction == "forward":
        return [o]
    row = (o.float() * do.float()).sum(-1).transpose(1, 2).contiguous() if direction == "delta" else o
    gradients = attention.backward(q, k, v, do, lse, row, call, delta=direction == "delta")
    torch.cuda.synchronize()
    return [o, *gradients]


def _one(arguments: list[str]) -> int:
    """In a process of its own: a line of JSON."""
    torch.set_grad_enabled(False)
    errors = check(*arguments)
    print(json.dumps(errors))
    return 0


def main() -> int:
    """Every case, as long as there is time."""
    if len(sys.argv) == 6 and sys.argv[1] == "one":
        return _one(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kernels", nargs="*", default=["flash2", "cudnn", "triton"])
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    for (form, size, direction), kernel in product(CASES, options.kernels):
        if time.monotonic() > end or (kernel == "cudnn" and form == "length"):
            continue
        command = [sys.executable, "-m", "validators.kernels.large_check", "one", kernel, form, size, direction]
        run = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
        case = {"kernel": kernel, "form": form, "size": size, "direction": direction}
        if run.returncode == 0:
            errors = json.loads(run.stdout.splitlines()[-1])
            right = all(error < TOLERANCE for error in errors.values())
            line = case | {"outcome": "right" if right else "wrong", "errors": errors}
        else:
            last = [each for each in run.stderr.splitlines() if "Error" in each][-1:]
            line = case | {"outcome": "failed", "detail": (last or ["no message"])[0][:300]}
        print(json.dumps(line), flush=True)
        with options.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Which CUDA kernels one attention call launches: names (they tell tiles), grids and times, by PyTorch's profiler.

``python -m validators.bench.launched`` prints one line of JSON per call: the evidence for tiles and launch counts.
"""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import torch

from validators.bench.attention import call_of, draw_problem
from validators.bench.plan import MASKS, attention_case
from validators.kernels import build_attention_kernel, why_unavailable

CALLS = tuple(product(("cudnn", "flash2", "triton"), (64, 128), MASKS, ((1, 8, 8), (1, 8, 2))))


def launched(kernel: str, head_dim: int, mask: str, heads: tuple[int, int, int], rows: int = 4096) -> dict[str, Any]:
    """Kernels of a forward and a backward call."""
    case = attention_case(kernel, "forward", heads, head_dim, rows, rows, MASKS[mask])
    problem, call = draw_problem(case.parameters, 0, torch.device("cuda")), call_of(case.parameters)
    attention = build_attention_kernel(kernel)

    def both() -> None:
        o, lse = attention.forward(problem.q, problem.k, problem.v, call)
        attention.backward(problem.q, problem.k, problem.v, problem.do, lse, o, call, delta=False)

    both()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        both()
        torch.cuda.synchronize()
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    found = [
        {"name": event.name()[:160], "us": event.duration_ns() / 1e3}
        for event in events
        if str(event.device_type()).endswith("CUDA") and event.duration_ns()
    ]
    return {"kernel": kernel, "head_dim": head_dim, "mask": mask, "heads": heads, "rows": rows, "launched": found}


def main() -> None:
    """Print them all."""
    for kernel, head_dim, mask, heads in CALLS:
        if not why_unavailable(kernel):
            print(json.dumps(launched(kernel, head_dim, mask, heads)), flush=True)


if __name__ == "__main__":
    main()

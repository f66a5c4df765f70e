"""Where recorded traces are."""

from __future__ import annotations

from pathlib import Path

RECORDED = Path(__file__).parent / "recorded"
SINGLE = (
    "h100-kernels.json.gz", "h100-small.json.gz", "h100-nccl1.json.gz", "h100-executor.json.gz", "cpu-kernels.json.gz",
)  # fmt: skip
GLOO = ("gloo-collectives", "gloo-ring", "gloo-executor")
NCCL = (
    "h100-shared-ring", "h100-shared-context-parallel", "h100-pair-ring", "h100-pair-torch-cp",
    "h100-pair-ring-flash-attn",
)  # fmt: skip
PAIRS = (*GLOO, *NCCL)

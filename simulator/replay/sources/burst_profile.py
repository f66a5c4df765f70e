"""Kernels of one profiled run: BurstEngine on rank 0 of 32 A800, 512K tokens, 40 heads, causal, zigzag, double ring.

Rank 0 of a zigzag ring holds the first and the last chunk. Of its 16384 tokens, all later ranks' keys are seen by the
second half of its queries alone: forward attends 8192 x 16384 tokens in each step beyond the first, which is causal. In
backward Burst's queries travel: all 16384 that arrive see the first half of its keys; LoongTrain's stay: half of them.
Mean times are of kernels that run beside NCCL's, which take multiprocessors and bandwidth from them: the efficiencies
of the two main kernels are fitted on Burst's steps.

| profiled kernel | model |
|---|---|
| flash_fwd, flash_bwd (non-diagonal or diagonal, by number of calls) | pieces of `cost_models.kernels` |
| dot_do_o, convert_dq, clear_dqaccum | bytes that they move |
| fused merge | bytes of half of a rank's rows |

NCCL's kernels wait for their peer, so their mean is no transfer time; small kernels of row statistics are overheads.
Source: github thunlp/BurstEngine @426eb7a evaluation/kernel_bench/plots/analysis (Apache-2.0).
"""

from __future__ import annotations

import re
from functools import cached_property

from cost_models.hardware import HardwareProfile
from cost_models.kernels import AttentionShape, estimate_elementwise_s
from cost_models.kernels.pieces import count_pieces
from cost_models.masks import KernelCall, Segment
from simulator.replay.fits import fitted_hardware
from simulator.replay.rows import Row, Skip
from simulator.replay.source import DATA, Source

RANKS = 32


class BurstProfile(Source):
    """Mean time of each kernel."""

    name = "burst-profile"
    title = "kernels of BurstEngine's profiled run, A800"

    def claims(self, row: Row) -> bool:
        """Rows of the profiles."""
        return "BurstEngine" in row["source"] and "torch profiler" in row["table_or_figure"]

    def predict(self, row: Row) -> float:
        """Milliseconds."""
        batch, heads, kv_heads, head_dim = row.dims()
        tokens = row.integer("seq_len", 2**24) // RANKS
        shape = AttentionShape(batch, heads, kv_heads, head_dim, head_dim, "bf16")
        return 1e3 * self._kernel_s(row, shape, tokens)

    def _kernel_s(self, row: Row, shape: AttentionShape, tokens: int) -> float:
        name, elements = row["metric"], shape.problems * shape.head_dim * tokens
        half, back = elements // 2, elements if "Burst" in row["method"] else elements // 2
        if "flash_fwd_kernel" in name or "flash_bwd_dq_dk_dv" in name:
            return self._attention_s(row, shape, tokens, "forward" if "fwd" in name else "backward")
        if "dot_do_o" in name:  # reads dO and O, clears the fp32 accumulator
            return self._moved_s(4 * back, 4 * back, "copy")
        if "clear_dqaccum" in name:
            return self._moved_s(0, 4 * back, "fill")
        if "convert_dq" in name:
            return self._moved_s(4 * back, 2 * back, "accumulate")
        if "fused_to_sub_sigmoid" in name:
            return self._moved_s(6 * half, 4 * half, "merge")
        raise Skip(_reason(name))

    def _attention_s(self, row: Row, shape: AttentionShape, tokens: int, direction: str) -> float:
        profile, half = self.hardware, tokens // 2
        if is_first(row):
            call = KernelCall((Segment(0, tokens, 0, tokens),), None, 0)
        elif direction == "backward" and "Burst" in row["method"]:
            call = KernelCall((Segment(0, tokens, 0, half),), None, None)
        else:
            call = KernelCall((Segment(0, half, 0, tokens),), None, None)
        curve, peak = profile.kernels["flash2"].direction(direction), profile.peak("bf16")
        return count_pieces(curve, False, profile.sm_count, peak, (call,), shape, direction).busy_s

    def _moved_s(self, read: int, written: int, pattern: str) -> float:
        return float(estimate_elementwise_s(self.hardware, read, written, pattern))

    @cached_property
    def hardware(self) -> HardwareProfile:
        """A800 beside NCCL's kernels."""
        return fitted_hardware(DATA / f"{self.name}.hardware.toml")

    def method(self, row: Row) -> str:
        """The run."""
        return row["method"].split(" ")[0]

    def configuration(self, row: Row) -> tuple[str, ...]:
        """Kernels by name are compared between the runs."""
        return (row["metric"][:60], row["notes"][:0])

    def in_fit(self, row: Row) -> bool:
        """Burst's steps beyond the first."""
        main = "flash_fwd_kernel" in row["metric"] or "flash_bwd_dq_dk_dv" in row["metric"]
        return main and "Burst" in row["method"] and not is_first(row)


def is_first(row: Row) -> bool:
    """Whether a kernel is that of the causal first step: once an iteration, 12 times; others 31 times as often."""
    found = re.search(r"calls=(\d{1,9})", row["notes"])
    return found is not None and int(found.group(1)) < 100


def _reason(name: str) -> str:
    if "nccl" in name:
        return "NCCL's kernel waits for its peer: its mean is no transfer time"
    if "elementwise" in name or "Memcpy" in name or "reduce" in name:
        return "which tensors the kernel moves is not recorded"
    return "no model of this kernel"


SOURCE = BurstProfile()

"""LongCA-bench's block-sparse kernels on one H100 (Tables 3 and 4): forward, grouped and plain heads, 16K to 128K.

Every block of queries (64 or 128 tokens) attends its kept blocks of keys, which the kernels gather: one segment per
block of queries, with a share of the keys. A kernel's tile has 128 queries, so blocks of 64 fill half of it:

    throughput = FLOP / t,    FLOP = 4 keep S^2 H D,    t by `cost_models.kernels`, one segment per block of queries

One efficiency per kernel. FlashInfer loses a sixth between 16K and 80K tokens, whatever share is kept; neither the keys
that a head's blocks share nor the duration explains it, and it is left as error.
Implementations without a fit (VSA, Triton VSA, FlexAttention) are skipped; so is backward.

Source: LongCA-bench, arXiv 2510.17896v1, Tables 3 and 4 (printed values).
"""

from __future__ import annotations

import re
from functools import cached_property, lru_cache

from cost_models.hardware import HardwareProfile
from cost_models.kernels import AttentionShape, estimate_attention_s
from cost_models.masks import KernelCall, Segment
from simulator.replay.fits import fitted_hardware
from simulator.replay.rows import Row, Skip
from simulator.replay.source import DATA, Source

KERNELS = {"FA2 Sparse": "fa2-sparse", "FlashInfer": "flashinfer"}
MASK = re.compile(r"block (\d{2,4})x\1; kept fraction (0\.\d{1,3})$")
FIT_LENGTHS = ("16384", "131072")


class LongcaBlockSparse(Source):
    """Throughput of block-sparse forward kernels."""

    name = "longca-block-sparse"
    title = "LongCA-bench's block-sparse kernels, one H100"

    def claims(self, row: Row) -> bool:
        """Rows of the block-sparse tables."""
        return "LongCA-bench" in row["source"] and "block-sparse" in row["mask"]

    def predict(self, row: Row) -> float:
        """TFLOP/s."""
        return self.throughput(self.hardware, row)

    def throughput(self, profile: HardwareProfile, row: Row) -> float:
        """TFLOP/s on a profile."""
        if row["method"] not in KERNELS:
            raise Skip(f"no curve for {row['method'][:60] or 'an unnamed method'}")
        found = MASK.search(row["mask"])
        if found is None or not row["mask"].startswith("uniform"):
            raise Skip("only uniform blocks of one size are gathered as equal segments")
        if not row["metric"].startswith("forward") or not row["gpu"].startswith("H100"):
            raise Skip("only forward on H100 has a fitted curve")
        block, keep, seq_len = int(found.group(1)), float(found.group(2)), row.integer("seq_len", 2**21)
        if seq_len // block > 2**16 or block not in (64, 128):
            raise Skip(f"blocks of {block} in {seq_len} tokens were not measured")
        batch, heads, kv_heads, head_dim = row.dims()
        shape = AttentionShape(batch, heads, kv_heads, head_dim, head_dim, "bf16")
        call = _call(seq_len, block, max(1, int(keep * (seq_len // block) + 1e-9)) * block)
        seconds = estimate_attention_s(profile, KERNELS[row["method"]], call, shape, "forward")
        return 4 * keep * seq_len**2 * batch * heads * head_dim / seconds / 1e12

    @cached_property
    def hardware(self) -> HardwareProfile:
        """H100 with the two kernels."""
        return fitted_hardware(DATA / f"{self.name}.hardware.toml")

    def in_fit(self, row: Row) -> bool:
        """Half of the blocks of 128 kept, grouped heads, shortest and longest."""
        at = (row["table_or_figure"], row["seq_len"])
        return row["mask"].endswith("block 128x128; kept fraction 0.5") and at in {("Table 3", s) for s in FIT_LENGTHS}


@lru_cache(maxsize=64)
def _call(seq_len: int, block: int, keys: int) -> KernelCall:
    """One segment per block of queries, on as many keys as it keeps; which ones does not matter to a gather."""
    return KernelCall(tuple(Segment(q, min(q + block, seq_len), 0, keys) for q in range(0, seq_len, block)), None, None)


SOURCE = LongcaBlockSparse()

r"""MagiAttention's kernel benchmark on one H100: seven implementations, six masks, 1K to 32K tokens (digitised bars).

    t = max(call, kernel),   throughput = FLOP counted / t,   FLOP = 4 pairs H D forward, 2.5 times that backward

``kernel`` is `cost_models.kernels` with one fitted efficiency per implementation and direction, all else being our
model of the kernel that is built alike (`refit_kernels`). With four or five constants each, as it was before, the
median is 3.9 % instead of 5.7 %, FlexAttention's and FlashMask's 5 and 7 instead of 15 %. ``call`` is what the host
needs for one call through the implementation's Python interface: at 1K tokens all masks take the same time, which no
kernel explains.

On B200, whose rows are not transcribed, cuDNN has the curve of the b200 profile, of another source.

Traps. The window's FLOP are those of 1024 keys, the kernels see 1025. The documents are not published, only their mean
density; here they are as few as reproduce it (`representative_lengths`), so document rows carry that guess. SDPA takes
windows and documents as a dense S x S mask, and computes all of it. FlexAttention was not compiled for windows and
block causal documents: its time is that of unfused operators, proportional to S^2 H, and those rows are skipped.

Source: SandAI-org/MagiAttention docs/source/blog/cp_benchmark.md and exps/attn @2c64135 (Apache-2.0); +-3 TFLOP/s.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

from cost_models.hardware import HardwareProfile, load_hardware
from cost_models.kernels import AttentionShape, estimate_calls_s
from cost_models.masks import KernelCall, Mask, TokenRange, lower, parse_mask
from simulator.replay.fits import fitted_hardware
from simulator.replay.rows import Row, Skip
from simulator.replay.source import DATA, Source

KERNELS = {
    "FlashAttention-2": "fa2",
    "FlashAttention-3": "fa3",
    "cuDNN fused (TransformerEngine)": "cudnn-te",
    "cuDNN": "cudnn-te",
    "PyTorch SDPA": "sdpa",
    "FlexAttention": "flex",
    "Flex-Flash-Attention (FFA)": "ffa",
    "FlashMask (Paddle)": "flashmask",
}
"""Curves of the fitted profile by method; ``sdpa-mask`` is SDPA with a dense mask."""

DENSITY = {1024: 0.225, 2048: 0.219, 4096: 0.208, 8192: 0.188, 16384: 0.167, 32768: 0.139}
"""Mean share of all pairs that lie within one document, by sequence length."""

WINDOW, BLOCK = 1024, 512
"""Keys that count; tokens of a block: rows of block-causal documents equal those of full ones at 2K tokens, where
documents have up to 512, and no longer at 4K."""

READING_ERROR = 3.0
"""TFLOP/s to which the chart is read; values of which that is more than 10 % are skipped."""

FIT_LENGTHS = (2048, 32768)
LARGEST_SEQ_LEN = 2**20


class MagiKernels(Source):
    """Throughput of one attention call on one H100."""

    name = "magi-kernels"
    title = "MagiAttention's kernel benchmark, one H100"

    def claims(self, row: Row) -> bool:
        """Rows of the benchmark's kernel charts."""
        return "MagiAttention" in row["source"] and row["table_or_figure"].startswith("kernel/")

    def predict(self, row: Row) -> float:
        """TFLOP/s."""
        mask_name, direction, seq_len = self.read(row)
        profile = self.hardware if row["gpu"] == "H100" else self.blackwell
        seconds = self.kernel_s(profile, row, mask_name, direction, seq_len)
        call_s: float = self.fit.constants["call_s"][KERNELS[row["method"]]][direction]
        return self.flop(row, mask_name, direction, seq_len) / max(seconds, call_s) / 1e12

    @cached_property
    def hardware(self) -> HardwareProfile:
        """H100 with a curve per implementation."""
        return fitted_hardware(DATA / f"{self.name}.hardware.toml")

    @cached_property
    def blackwell(self) -> HardwareProfile:
        """B200 with its own cuDNN, under the name that it has here."""
        profile = load_hardware("b200")
        return profile.model_copy(update={"kernels": {"cudnn-te": profile.kernels["cudnn"]}})

    def fitted_on(self, row: Row) -> str | None:
        """Of another GPU only the time of a call is fitted, on H100."""
        text = super().fitted_on(row)
        return text if row["gpu"] == "H100" else f"time of a call alone, {text}"

    def published(self, row: Row) -> tuple[float, str]:
        """TFLOP/s, if the bar is long enough to be read."""
        value, unit = super().published(row)
        if value < 10 * READING_ERROR:
            raise Skip(f"the chart is read to +-{READING_ERROR:g} TFLOP/s, more than 10 % of this value")
        return value, unit

    def in_fit(self, row: Row) -> bool:
        """2K and 32K without documents, 16K with full documents; the call's time from one row of 1K."""
        mask, seq_len = row["table_or_figure"].split("/")[2], int(row["seq_len"])
        if row["gpu"] != "H100":
            return False
        if seq_len == 1024:
            return mask == ("causal_mask" if KERNELS[row["method"]] in ("sdpa", "flex") else "varlen_full_mask")
        if is_dense(row["method"], mask):
            return mask == "varlen_full_mask" and seq_len in (2048, 8192)
        no_documents = not mask.startswith("varlen")
        return (no_documents and seq_len in FIT_LENGTHS) or (seq_len, mask) == (16384, "varlen_full_mask")

    def read(self, row: Row) -> tuple[str, str, int]:
        """(mask, direction, sequence length) of a row that can be predicted."""
        if row["method"] not in KERNELS:
            raise Skip(f"no curve for {row['method'] or 'an unnamed method'}")
        if row["gpu"] != "H100" and (row["gpu"], KERNELS[row["method"]]) != ("B200", "cudnn-te"):
            raise Skip(f"no curve of {row['method']} on {row['gpu'] or 'an unnamed GPU'}")
        parts = row["table_or_figure"].split("/")
        if len(parts) != 4 or parts[2] not in MASKS or parts[3] not in ("fwd", "bwd"):
            raise Skip(f"no mask and direction in table_or_figure {row['table_or_figure'][:60]}")
        if row["method"] == "FlexAttention" and parts[2] in ("sw_causal_mask", "varlen_block_causal_mask"):
            raise Skip("FlexAttention ran uncompiled there: unfused operators, no attention kernel")
        seq_len = row.integer("seq_len", LARGEST_SEQ_LEN)
        if parts[2].startswith("varlen") and seq_len not in DENSITY:
            raise Skip(f"no density of documents is known for {seq_len} tokens")
        return parts[2], "forward" if parts[3] == "fwd" else "backward", seq_len

    def flop(self, row: Row, mask_name: str, direction: str, seq_len: int) -> float:
        """Operations as the benchmark counts them."""
        batch, heads, _, head_dim = row.dims()
        pairs = _mask(mask_name, seq_len, WINDOW).area(seq_len)
        return 4 * pairs * batch * heads * head_dim * (1.0 if direction == "forward" else 2.5)

    def kernel_s(self, profile: HardwareProfile, row: Row, mask_name: str, direction: str, seq_len: int) -> float:
        """Time of the kernel on the GPU."""
        batch, heads, kv_heads, head_dim = row.dims()
        dense = is_dense(row["method"], mask_name)
        kernel = "sdpa-mask" if dense else KERNELS[row["method"]]
        shape = AttentionShape(batch, heads, kv_heads, head_dim, head_dim, "bf16")
        return estimate_calls_s(profile, kernel, _calls("full_mask" if dense else mask_name, seq_len), shape, direction)


def representative_lengths(seq_len: int) -> tuple[int, ...]:
    """Documents, as few as have the published density.

    Some are a quarter of the sequence, the longest there are, the others equal and at least a sixteenth.

    >>> representative_lengths(8192)
    (2048, 2048, 1024, 1024, 1024, 1024)
    """
    density = DENSITY[seq_len]
    long = max(n for n in range(4) if density - n / 16 >= (1 - n / 4) / 16)
    rest = seq_len - long * seq_len // 4
    share = (density - long / 16) / (1 - long / 4)
    count = max(1, round(rest / seq_len / share))
    short = [rest // count] * count
    short[-1] += rest - sum(short)
    return (*[seq_len // 4] * long, *short)


MASKS = {
    "full_mask": "full",
    "causal_mask": "causal",
    "sw_causal_mask": "sliding-window:window={window},causal=true",
    "varlen_full_mask": "document:lengths={lengths}",
    "varlen_causal_mask": "document:lengths={lengths},causal=true",
    "varlen_block_causal_mask": "block-causal-document:lengths={lengths},block={block}",
}


def is_dense(method: str, mask_name: str) -> bool:
    """Whether SDPA gets the mask as a dense matrix."""
    return method == "PyTorch SDPA" and mask_name not in ("full_mask", "causal_mask")


@lru_cache
def _mask(name: str, seq_len: int, window: int) -> Mask:
    lengths = "+".join(map(str, representative_lengths(seq_len))) if "varlen" in name else ""
    return parse_mask(MASKS[name].format(window=window, lengths=lengths, block=BLOCK), seq_len)


@lru_cache
def _calls(name: str, seq_len: int) -> tuple[KernelCall, ...]:
    whole = [TokenRange(0, seq_len)]
    return lower(_mask(name, seq_len, WINDOW + 1), whole, whole, seq_len).calls


SOURCE = MagiKernels()

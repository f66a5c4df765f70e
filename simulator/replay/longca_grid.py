"""LongCA-bench's grid as a prediction: its paper shows charts of it and prints no numbers.

64 query heads on 8 KV heads, head dim 128, bf16, 8,192 tokens per GPU, 8 to 96 H100 in nodes of 8 (400 Gb/s a GPU,
which the paper does not state), FlashAttention-3; TFLOP/s per GPU, forward and backward, FLOP 4 pairs H D and 2.5 times
that.

The masks are those of its section 2.1, with random parameters at their mean: windows of 1,024 keys to a side; prefixes
of half the sequence, or of half the first document; global windows of a sixth of the sequence; documents of the
published mean number and density (`documents`). Context is split in zigzag where the mask is causal or has documents;
all-gather cuts every document by itself, as the benchmark does (rings too, but that is long to simulate at 96 GPUs, and
their time is that of their hops).

``python -m simulator.replay.longca_grid`` writes ``docs/longca-grid.md``.
Source: LongCA-bench, arXiv 2510.17896, sections 2.1 and 4; number and density of documents simulated from its code
@22683e3 (its "long" document generators).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cost_models.hardware import load_hardware
from cost_models.masks import parse_mask
from cost_models.topology import NcclSettings
from simulator.replay.attention import Machine, Problem
from simulator.replay.documents import zipf_lengths
from simulator.replay.rows import Skip
from traces.atomic import write_text_atomic

GPUS = (8, 16, 32, 48, 64, 96)
TOKENS = 8192
HEADS, KV_HEADS, HEAD_DIM = 64, 8, 128

DOCUMENTS = {8: (39, 0.203), 16: (67, 0.130), 32: (98, 0.098), 48: (134, 0.100), 64: (149, 0.094), 96: (169, 0.094)}
"""Number and density of documents by GPUs."""

MECHANISMS = {
    "Ulysses": "ulysses",
    "Ring P2P": "ring:partition={partition},grad=bf16",
    "All-Gather": "allgather:partition={partition}",
    "USP": "usp:ulysses=8,ring={ring},partition={partition},grad=bf16",
    "LoongTrain": "loongtrain:head=8,context={ring},partition={partition},grad=bf16",
    "MagiAttention": "magi:chunk=2048,stages=2",
    "HybridCP": "hybrid-cp",
}

MASKS = {
    "Full": "full",
    "Causal": "causal",
    "Full sliding window": "sliding-window:window=1025",
    "Causal sliding window": "sliding-window:window=1025,causal=true",
    "Full document": "document:lengths={lengths}",
    "Causal document": "document:lengths={lengths},causal=true",
    "Share question": "share-question:lengths={lengths}",
    "Causal blockwise": "causal-blockwise:lengths={lengths}",
    "Global sliding": "global-sliding:window={sixth},global={sixth}",
    "Prefix LM causal": "prefix-causal:prefix={half}",
    "Prefix LM document": "prefix-document:lengths={lengths},prefix={half_first}",
    "Block causal document": "block-causal-document:lengths={lengths},block=1024",
}


def build_mask(name: str, gpus: int) -> str:
    """The mask of a name at a scale, as text."""
    seq_len = TOKENS * gpus
    lengths = zipf_lengths(seq_len, *DOCUMENTS[gpus], largest=1.0)
    return MASKS[name].format(
        lengths="+".join(map(str, lengths)), half=seq_len // 2, half_first=lengths[0] // 2, sixth=seq_len // 6
    )


def predict(mechanism: str, mask_name: str, gpus: int, machine: Machine) -> tuple[float, float]:
    """TFLOP/s per GPU, forward and backward.

    Raises
    ------
    Skip
        Where the mechanism cannot run, with the reason.
    """
    mask = build_mask(mask_name, gpus)
    balanced = "document-zigzag" if mechanism == "All-Gather" else "zigzag"
    partition = "contiguous" if mask_name in ("Full", "Full sliding window", "Global sliding") else balanced
    schedule = MECHANISMS[mechanism].format(partition=partition, ring=gpus // 8)
    problem = Problem(1, HEADS, KV_HEADS, HEAD_DIM, TOKENS * gpus, mask)
    times = machine.times(schedule, problem, gpus)
    flop = problem.forward_flop(parse_mask(mask, problem.seq_len).area(problem.seq_len)) / gpus / 1e12
    return flop / times.forward_s, 2.5 * flop / (times.both_s - times.forward_s)


def build_machine() -> Machine:
    """H100 nodes of 8, with today's NCCL."""
    return Machine("dgx-h100", load_hardware("h100-sxm"), "h100-sxm", "flash3", NcclSettings())


def describe_grid() -> Iterator[str]:
    """The grid as Markdown, line by line: a table per mask, and why mechanisms cannot run."""
    machine = build_machine()
    reasons: dict[str, str] = {}
    yield from ("# LongCA-bench's grid, predicted", "", *_INTRODUCTION, "")
    for mask_name in MASKS:
        yield from (
            f"## {mask_name}",
            "",
            "| GPUs | " + " | ".join(MECHANISMS) + " |",
            "|---|" + "---|" * len(MECHANISMS),
        )
        for gpus in GPUS:
            cells = [_cell(mechanism, mask_name, gpus, machine, reasons) for mechanism in MECHANISMS]
            yield f"| {gpus} | " + " | ".join(cells) + " |"
        yield ""
    yield from ("## What cannot run", "", *(f"- {what}: {reason}" for what, reason in reasons.items()))


_INTRODUCTION = (
    "A prediction, made by `python -m simulator.replay.longca_grid`; the paper (arXiv 2510.17896) shows charts and",
    "prints no numbers. TFLOP/s per GPU, forward / backward; 64 query heads on 8 KV heads, head dim 128, bf16, 8,192",
    "tokens per GPU, H100 in nodes of 8 with 400 Gb/s a GPU, FlashAttention-3. Masks with random parameters are at",
    "their mean. Communication waits for kernels that fill the GPU, as with PyTorch's default streams, MagiAttention's",
    "too. How far off such figures are is known for the nearest benchmark: `magi-distributed` in `replay.md`.",
)


def _cell(mechanism: str, mask_name: str, gpus: int, machine: Machine, reasons: dict[str, str]) -> str:
    try:
        forward, backward = predict(mechanism, mask_name, gpus, machine)
    except Skip as reason:
        reasons.setdefault(f"{mechanism} on {gpus} GPUs", str(reason))
        return "x"
    return f"{forward:.0f} / {backward:.0f}"


if __name__ == "__main__":
    path = Path(__file__).parents[2] / "docs" / "longca-grid.md"
    write_text_atomic(path, "\n".join(describe_grid()) + "\n")

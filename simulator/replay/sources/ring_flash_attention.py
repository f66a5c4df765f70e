"""ring-flash-attention's README: attention of Llama-3.1-8B's shape, 8K tokens per GPU, causal, on 8 GPUs of one node.

Rows of documents (``varlen`` in the shape) cycle through four sets of documents, whose lengths the benchmark states per
GPU; over P GPUs each document is P times as long, and cut for every GPU by itself. Their throughput is that of the mean
time. RingComm's stream has no priority, so that hops wait for kernels.

Source: github zhuzilin/ring-flash-attention @8996282 README and benchmark/ (MIT).
"""

from __future__ import annotations

from functools import lru_cache

from cost_models.hardware import load_hardware
from simulator.replay.attention import Machine, Problem, Times, value_of
from simulator.replay.rows import Row, Skip
from simulator.replay.source import Source

DOCUMENTS = ((8192,), (256, 7392, 544), (4096, 4096), (3104, 3200, 1600, 160, 128))
"""Lengths of the documents on each GPU, one set after the other."""

SCHEDULES = {
    "flash_attn single GPU on local 8k": "flash",
    "ring_attn": "ring:partition=contiguous",
    "zigzag_ring": "ring:partition=zigzag",
    "stripe_attn": "ring:partition=striped",
}
VARLEN_SCHEDULES = {
    "flash_attn single GPU on local 8k": "flash",
    "zigzag_ring": "ring:partition=document-zigzag",
    "llama3_attn": "allgather:partition=contiguous,head-group=4",
}

MACHINES = {"A100": ("dgx-a100", "a100-80"), "H800": ("dgx-h100", "h800"), "H100": ("dgx-h100", "h100-sxm")}
TOKENS = 8192


class RingFlashAttention(Source):
    """Iterations per second of the README's tables."""

    name = "ring-flash-attention"
    title = "ring-flash-attention's README, 8 GPUs of one node"

    def claims(self, row: Row) -> bool:
        """Rows of the README."""
        return "ring-flash-attention" in row["source"]

    def predict(self, row: Row) -> float:
        """Iterations per second."""
        gpus, varlen = row.integer("n_gpus", 64), "varlen" in row["model_or_shape"]
        schedules = VARLEN_SCHEDULES if varlen else SCHEDULES
        if row["method"] not in schedules:
            raise Skip(
                "a contiguous ring that cuts every document by itself is no schedule here"
                if row["method"] == "ring_attn"
                else f"no schedule for {row['method'][:60] or 'an unnamed method'}"
            )
        machine = _machine(row["gpu"].split("-")[0])
        schedule, whole = schedules[row["method"]], Problem.of(row)
        if not varlen:
            times = machine.times(schedule, whole, gpus)
        elif whole.seq_len != TOKENS * gpus:
            raise Skip(f"documents are known for {TOKENS} tokens a GPU")
        else:
            problems = [Problem.of(row, _mask(lengths, gpus)) for lengths in DOCUMENTS]
            times = _mean([machine.times(schedule, problem, gpus) for problem in problems])
        return value_of(row, times, whole.forward_flop(whole.seq_len**2 / 2), gpus)

    def in_fit(self, row: Row) -> bool:
        """The A100 profile has its efficiencies from the single GPU without documents."""
        return row["method"].startswith("flash_attn") and row["gpu"] == "A100" and "varlen" not in row["model_or_shape"]

    def fitted_on(self, row: Row) -> str | None:
        """The A100's own profile has seen two rows; no other GPU's."""
        on_a100 = row["gpu"].startswith("A100")
        return "a100-80: flash_attn on one A100, forward and both" if on_a100 else None


@lru_cache
def _machine(gpu: str) -> Machine:
    if gpu not in MACHINES:
        raise Skip(f"no profile of {gpu or 'an unnamed GPU'}")
    topology, hardware = MACHINES[gpu]
    return Machine(topology, load_hardware(hardware), hardware, "flash2")


def _mask(lengths: tuple[int, ...], gpus: int) -> str:
    return "document:causal=true,lengths=" + "+".join(str(length * gpus) for length in lengths)


def _mean(times: list[Times]) -> Times:
    count = len(times)
    return Times(sum(each.forward_s for each in times) / count, sum(each.both_s for each in times) / count)


SOURCE = RingFlashAttention()

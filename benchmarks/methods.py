"""What methods of fine-tuning change in a step, at three lengths: ``python -m benchmarks.methods``.

Llama-3.1-8B, one sequence (two answers to a prompt for dpo and orpo) on 16 H100 of two DGX nodes, ring attention, ZeRO
3, full checkpointing, head and loss in 16 chunks (whole logits for dpo and orpo, whose gradient needs them). PFLOP and
seconds are of the step, gigabytes of the GPU with most. The table is in docs/finetuning.md.
"""

from __future__ import annotations

from cost_models.finetuning import parse_method
from simulator.request import SimulationRequest
from simulator.result import SimulationResult
from simulator.simulate import simulate

METHODS = ("full", "half", "lora:rank=16", "lora:rank=16,targets=all", "qlora:rank=16", "dora:rank=16",
           "adapters:size=64", "dpo", "dpo:rank=16", "orpo")  # fmt: skip
FORM = "{:<26}{:>7}{:>10}{:>10}{:>16}{:>11}"
LENGTHS = ("8k", "128k", "1M")


def step(method: str, seq_len: str) -> SimulationResult:
    """A step of a method."""
    chunks = 16 if parse_method(method).answers == 1 else None
    return simulate(
        SimulationRequest(
            model="llama-3.1-8b", seq_len=seq_len, gpus=16, topology="dgx-h100", layers="model", schedule="ring",
            zero=3, checkpoint="full", loss_chunks=chunks, method=method, timeline=False,
        )
    )  # fmt: skip


def row(method: str, seq_len: str) -> str:
    """A line of the table."""
    done = step(method, seq_len)
    memory = f"{done.peak_memory_bytes / 1e9:.1f}" + ("" if done.fits else " (no)")
    flop, sent = f"{done.flop_total / 1e15:,.3g}", f"{max(done.bytes_sent_per_rank) / 1e9:,.1f}"
    return FORM.format(method, seq_len, flop, sent, memory, f"{done.time_s:,.3g}")


def main() -> None:
    """Print the table."""
    print(FORM.format("method", "tokens", "PFLOP", "GB sent", "GB at most", "s a step"))
    for method in METHODS:
        for length in LENGTHS:
            print(row(method, length))


if __name__ == "__main__":
    main()

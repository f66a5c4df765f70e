"""DistFlashAttn (LightSeq) against Megatron: seconds per training step of 7B models on 8 and 16 A100-80GB.

LightSeq's kernels are Triton's; it keeps attention's output (checkpointing at its boundary) and shards by FSDP.
Megatron is tensor parallel over all GPUs with split tokens and full recomputation; models with 33 heads or fewer KV
heads than ranks are padded or replicated by it in ways that the table does not state. The 16 GPUs are two DGX nodes
with "InfiniBand 100 Gbps" between them, which is taken as the rate of each of a DGX A100's eight ports (200 in its
data sheet): one such port for a node would make MHA at 128K five times slower than it was. Batch is 1 (Table 5).
Nothing is fitted.

What is left: Megatron is 9 to 17 % too fast on one node, by a fifth to a quarter of attention's time at each length,
while DistFlashAttn's kernel is right where attention rules. Which kernel Megatron had, and whether with dropout (its
default, which the table does not state), is not known.

Source: Li et al. 2024, arXiv 2310.03294, Table 1 and section 3.3.
"""

from __future__ import annotations

from cost_models.models import ModelShape
from simulator.replay.models import MAX_GPUS, MAX_SEQ_LEN, Cluster, Run, value_of
from simulator.replay.rows import Row, Skip
from simulator.replay.source import Source

MODELS = {
    "LLaMA-7B": ModelShape("llama-7b", 32, 4096, 32, 32, 128, 128, 11008, 32000),
    "LLaMA-GQA": ModelShape("llama-gqa", 32, 4096, 32, 8, 128, 128, 11008, 32000),
    "LLaMA-33H": ModelShape("llama-33h", 32, 4224, 33, 33, 128, 128, 11008, 32000),
}


class DistFlashAttn(Source):
    """Training steps."""

    name = "distflashattn"
    title = "DistFlashAttn's training steps, A100"

    def claims(self, row: Row) -> bool:
        """Rows of Table 1."""
        return "2310.03294" in row["source"] and row["table_or_figure"] == "Table 1"

    def predict(self, row: Row) -> float:
        """Seconds per step."""
        gpus, seq_len = row.integer("n_gpus", MAX_GPUS), row.integer("seq_len", MAX_SEQ_LEN)
        model = row["model_or_shape"].split(" ")[0]
        if model not in MODELS:
            raise Skip(f"no shape for {model[:40] or 'an unnamed model'}")
        if row["method"] == "DistFlashAttn":
            run = Run(MODELS[model], "lightseq", gpus, seq_len, "step", (("zero", 3), ("checkpoint", "attention")))
            return value_of(row, self.triton.outcome(run), run)
        if row["method"].startswith("Megatron"):
            options = (("tp", gpus), ("tp_version", 3), ("checkpoint", "full"))
            run = Run(MODELS[model], "flash", gpus, seq_len, "step", options)
            return value_of(row, self.flash.outcome(run), run)
        raise Skip(f"no schedule for {row['method'][:60] or 'an unnamed method'}")

    triton, flash = [Cluster("dgx-a100", "a100-80", kernel, what_if="net=0.5") for kernel in ("triton", "flash2")]


SOURCE = DistFlashAttn()

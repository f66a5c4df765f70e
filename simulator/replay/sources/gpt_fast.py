"""gpt-fast: tokens/s of one sequence that is decoded on A100-80GB, compiled, with weights of 16, 8 and 4 bits.

`torch.compile` captures a token's kernels in a CUDA graph. The prompt has 5 tokens and 200 are generated; attention is
to a cache of that size. int8 has a scale per row, int4 a bf16 scale and zero per 32 weights, 5 bits. GPUs are limited
to 330 W, which does not concern memory, by which decoding is bound. They are joined by a hybrid cube mesh, where the
topology here is a DGX's. Tensor parallel rows of the later README use an all-reduce of their own, not NCCL's, and are
skipped. Nothing is fitted.

Source: github pytorch-labs/gpt-fast, README.md @d2c5d822 and @0f925b5d, mixtral-moe/README.md @4f98fe01 (BSD-3-Clause).
"""

from __future__ import annotations

from typing import Any

from cost_models.models import ModelShape, load_model
from simulator.replay.models import MAX_GPUS, MAX_SEQ_LEN, Cluster, Run
from simulator.replay.rows import Row, Skip
from simulator.replay.source import Source

MODELS = {
    "Llama-2-7B": load_model("llama-2-7b"),
    "Llama-2-70B": ModelShape("llama-2-70b", 80, 8192, 64, 8, 128, 128, 28672, 32000),
    "Mixtral 8x7B": load_model("mixtral-8x7b"),
}
BITS = {"bf16": None, "int8": 8.0, "int4 (G=32)": 5.0}


class GptFast(Source):
    """Decoding."""

    name = "gpt-fast"
    title = "gpt-fast's decoding of one sequence, A100"
    cluster = Cluster("dgx-a100", "a100-80")

    def claims(self, row: Row) -> bool:
        """Rows of its pages."""
        return "gpt-fast" in row["source"]

    def predict(self, row: Row) -> float:
        """Tokens/s."""
        if "intra-node all-reduce" in row["method"]:
            raise Skip("its all-reduce is not NCCL's")
        if row["model_or_shape"] not in MODELS or row["dtype"] not in BITS:
            raise Skip(f"no shape or bits for {row['model_or_shape'][:40]} in {row['dtype'][:40]}")
        gpus, tokens = row.integer("n_gpus", MAX_GPUS), row.integer("seq_len", MAX_SEQ_LEN)
        options: dict[str, Any] = {"tp": gpus, "cuda_graphs": True, "weight_bits": BITS[row["dtype"]]}
        run = Run(MODELS[row["model_or_shape"]], "flash", gpus, tokens, "decode", tuple(options.items()))
        return 1 / self.cluster.outcome(run).time_s

    def method(self, row: Row) -> str:
        """By model."""
        return row["model_or_shape"]


SOURCE = GptFast()

"""BurstAttention's first-token latencies: LLaMA-2 7B and 13B on eight A100 of one machine, without peer-to-peer.

Whole-model prefill of one prompt; what attends is RSA and Burst over all tokens (their causal kernel came later), and
tensor parallelism of both Megatron versions with a causal flash kernel. NCCL had NCCL_P2P_DISABLE=1 (the logs in
thunlp/BurstEngine, exp_res), so that data go through host memory; the paper says PCI-E and neither generation nor
sockets nor the memory of the GPUs, for which stand a DGX A100's (Gen4, two GPUs to a switch) and 80 GB. Nothing is
fitted.

Predictions are 42 % short throughout, methods in the right order, and two causes show in the published times. What
grows with the square of the length is attention at 130 (Burst, all pairs) and 68 TFLOP/s (causal): the rates of the
first FlashAttention, half of those of the second, with which it is priced. What grows with the length moves at 5.6
GB/s, where Gen4 and host memory are priced at 10: as PCIe Gen3 would. Neither is stated, so neither is assumed.

"w/o LAO" stores scores as RSA does, and is not predicted: no schedule here is Burst without its fused kernel.

Source: Sun et al. 2024, arXiv 2403.09347, section 4.2 and Table 2.
"""

from __future__ import annotations

from typing import Any

from simulator.replay.models import MAX_GPUS, MAX_SEQ_LEN, Cluster, Run, shape_of, value_of
from simulator.replay.rows import Row, Skip
from simulator.replay.source import Source

TENSOR = {"TP (Megatron V1) w/ Flash": 1, "TP (Megatron V3) w/ Flash": 3}
FULL = {"RingAttention (Li et al. 2021 RSA)": "rsa", "BurstAttention": "burst:partition=contiguous"}


class BurstFirstToken(Source):
    """Prefill of a whole model over PCIe."""

    name = "burst-first-token"
    title = "BurstAttention's first-token latency, 8 A100 over PCIe"
    cluster = Cluster("dgx-a100", "a100-80", nccl=("NCCL_P2P_DISABLE=1",))

    def claims(self, row: Row) -> bool:
        """Rows of Table 2."""
        return "2403.09347" in row["source"] and row["table_or_figure"] == "Table 2"

    def predict(self, row: Row) -> float:
        """Seconds."""
        gpus, seq_len = row.integer("n_gpus", MAX_GPUS), row.integer("seq_len", MAX_SEQ_LEN)
        options: tuple[tuple[str, Any], ...]
        if row["method"] in TENSOR:
            schedule, options = "flash", (("tp", gpus), ("tp_version", TENSOR[row["method"]]))
        elif row["method"] in FULL:
            schedule, options = FULL[row["method"]], (("mask", "full"),)
        else:
            raise Skip(f"no schedule for {row['method'][:60] or 'an unnamed method'}")
        run = Run(shape_of(row), schedule, gpus, seq_len, "prefill", options)
        return value_of(row, self.cluster.outcome(run), run)


SOURCE = BurstFirstToken()

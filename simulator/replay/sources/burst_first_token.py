"""BurstAttention's first-token latencies: LLaMA-2 7B and 13B on eight A100 of one machine, without peer-to-peer.

Whole-model prefill of one prompt. What ran is known from the authors' logs, which hold the table's figures (github
thunlp/BurstEngine @698f798, BurstEngine/apps/llama: exp_res/infer-7b-262144.txt and its -tp-sp-flash-final for Megatron
V3; exp_scale_inf.py is the script of their kind):

- All methods attend to all tokens, tensor parallelism too: a later log with causal masks (13b-infer-scale
  ...-tpv3v1-causal.txt) has 37.2 s where the first has 44.4 s (13B, 128K, V1), and what grows with the square of the
  length halves. The paper's "causal kernel" is not in the table.
- NCCL_P2P_DISABLE=1 (bw=low): data go through host memory. NCCL reaches there what it reaches in the one measurement of
  that transport there is, 54 % of PCIe both ways (four RTX 4090, `cost_models/network/data/fit.toml`), 6.4 GB/s where
  two GPUs share a switch's Gen4 link. Generation, sockets and switches are not stated: a DGX A100's stand for them.
- `--flash triton`: flash-attention's Triton kernel (cpm/layers/flash_triton.py), for whose rate on an A100 nothing is
  published here: one constant, fitted on one row.

Burst's ring takes a fifth longer than its bytes at that rate up to 64K tokens, and a quarter longer beyond, where
attention rules: its kernel is another one (it takes up the running maximum, and Q, K, V are transposed and copied in
every step: burst_attn/burst_attn_simple.py), and of the code of that day there are several versions. RSA's softmax over
stored scores is eager PyTorch. Neither is modelled further. "w/o LAO" stores scores as RSA does, and is not predicted:
no schedule here is Burst without its fused kernel.

Source: Sun et al. 2024, arXiv 2403.09347, section 4.2 and Table 2; github thunlp/BurstEngine (Apache-2.0).
"""

from __future__ import annotations

from functools import cached_property

from cost_models.hardware import HardwareProfile
from simulator.replay.fits import fitted_hardware
from simulator.replay.models import MAX_GPUS, MAX_SEQ_LEN, Cluster, Run, shape_of, value_of
from simulator.replay.rows import Row, Skip
from simulator.replay.source import DATA, Source

TENSOR = {"TP (Megatron V1) w/ Flash": 1, "TP (Megatron V3) w/ Flash": 3}
CONTEXT = {"RingAttention (Li et al. 2021 RSA)": "rsa", "BurstAttention": "burst:partition=contiguous"}


class BurstFirstToken(Source):
    """Prefill of a whole model over PCIe."""

    name = "burst-first-token"
    title = "BurstAttention's first-token latency, 8 A100 over PCIe"

    @cached_property
    def cluster(self) -> Cluster:
        """The machine with the fitted kernel."""
        return build_cluster(fitted_hardware(DATA / f"{self.name}.hardware.toml"))

    def claims(self, row: Row) -> bool:
        """Rows of Table 2."""
        return "2403.09347" in row["source"] and row["table_or_figure"] == "Table 2"

    def predict(self, row: Row) -> float:
        """Seconds."""
        gpus, seq_len = row.integer("n_gpus", MAX_GPUS), row.integer("seq_len", MAX_SEQ_LEN)
        options: tuple[tuple[str, object], ...] = (("mask", "full"),)
        if row["method"] in TENSOR:
            schedule, options = "flash", (*options, ("tp", gpus), ("tp_version", TENSOR[row["method"]]))
        elif row["method"] in CONTEXT:
            schedule = CONTEXT[row["method"]]
        else:
            raise Skip(f"no schedule for {row['method'][:60] or 'an unnamed method'}")
        run = Run(shape_of(row), schedule, gpus, seq_len, "prefill", options)
        return value_of(row, self.cluster.outcome(run), run)

    def in_fit(self, row: Row) -> bool:
        """Where attention weighs most."""
        return row["method"] == "TP (Megatron V1) w/ Flash" and row["seq_len"] == "262144"


def build_cluster(profile: HardwareProfile) -> Cluster:
    """Eight A100 without peer-to-peer."""
    return Cluster("dgx-a100", "a100-80", nccl=("NCCL_P2P_DISABLE=1",), profile=profile)


SOURCE = BurstFirstToken()

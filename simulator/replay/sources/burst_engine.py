"""BurstEngine's 14B model end to end on 8 to 64 A800: tokens/s and peak memory, and its ablation on 64.

ZeRO-3 over all ranks, one sequence, striped tokens, double ring, attention results kept ("whole"), their later half
("half", "sl_ckpt") or nothing, head and loss fused over chunks ("sl_loss") or whole. Rows with offloaded optimizer
states are skipped (how BMTrain moves them is not stated), and so are baselines whose checkpointing is not stated.

Fitted: 9.46 GB of memory besides tensors (CUDA context, NCCL's and BMTrain's buffers, fragmentation), on one row: the
full ablation's memory on 64 GPUs. Time is not fitted.

Source: github thunlp/BurstEngine @426eb7a plot_code/burst_attn/burst_exp.xlsx (behind the figures of arXiv 2509.19836).
"""

from __future__ import annotations

from simulator.replay.models import MAX_GPUS, MAX_SEQ_LEN, Cluster, Run, shape_of, value_of
from simulator.replay.rows import Row, Skip
from simulator.replay.source import Source

BESIDE_TENSORS_BYTES = 9.46e9
FITTED_ON = "memory of 'Burst-Baseline w. bwd_opt & double & sl_loss & whole' on 64 GPUs"

DOUBLE, FLAT = "burst:partition=striped,ring=double", "burst:partition=striped,ring=flat"
METHODS = {
    "BurstEngine, optimizer offload=False": (DOUBLE, "attention", True),
    "Burst-Ring": (DOUBLE, "attention", True),
    "Burst-Ring w. half-ckpt": (DOUBLE, "sequence", True),
    "Burst-Baseline w. bwd_opt": (FLAT, "full", False),
    "Burst-Baseline w. bwd_opt & double": (DOUBLE, "full", False),
    "Burst-Baseline w. bwd_opt & double & sl_loss & sl_ckpt": (DOUBLE, "sequence", True),
    "Burst-Baseline w. bwd_opt & double & sl_loss & whole_ckpt": (DOUBLE, "attention", True),
}
"""Schedule, checkpointing, and whether head and loss are fused."""


class BurstEngine(Source):
    """Training steps of the 14B model."""

    name = "burst-engine"
    title = "BurstEngine's 14B model end to end, A800"

    def claims(self, row: Row) -> bool:
        """Rows of the spreadsheet."""
        return "burst_exp.xlsx" in row["source"]

    def predict(self, row: Row) -> float:
        """Tokens/s per GPU, or gigabytes."""
        method = " ".join(row["method"].replace("whole ckpt", "whole_ckpt").split())
        known = next((each for each in METHODS if method == each or _same(method, each)), None)
        if known is None:
            raise Skip(f"settings of {row['method'][:60] or 'an unnamed method'} are not stated")
        if "sparse" in row["table_or_figure"]:
            raise Skip("labels of the sparse sheets look permuted")
        schedule, keep, fused = METHODS[known]
        gpus, seq_len = row.integer("n_gpus", MAX_GPUS), row.integer("seq_len", MAX_SEQ_LEN)
        options = (("zero", 3), ("checkpoint", keep), ("loss_chunks", 16 if fused else None))
        run = Run(shape_of(row), schedule, gpus, seq_len, "step", options)
        return value_of(row, self.cluster.outcome(run), run, BESIDE_TENSORS_BYTES)

    def fitted_on(self, row: Row) -> str | None:
        """Memory only."""
        return FITTED_ON if "memory" in row["metric"].lower() else None

    def in_fit(self, row: Row) -> bool:
        """The one row."""
        whole = "sl_loss" in row["method"] and "whole" in row["method"]
        return whole and "memory" in row["metric"].lower() and row["n_gpus"] == "64"

    def configuration(self, row: Row) -> tuple[str, ...]:
        """Methods are compared across sheets."""
        return tuple(row[column] for column in ("n_gpus", "model_or_shape", "seq_len", "metric", "unit"))

    cluster = Cluster("dgx-a100:ports=4", "a800")


def _same(method: str, known: str) -> bool:
    """The sheets cut long names in different places."""
    words = ("sl_loss", "whole", "sl_c", "double", "bwd_opt")
    return "Baseline" in method and "Baseline" in known and all((word in method) == (word in known) for word in words)


SOURCE = BurstEngine()

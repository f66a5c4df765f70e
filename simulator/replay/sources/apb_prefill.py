"""APB's prefill times by length: 8B Llama shape on one and eight A800 (NVLink), six methods.

Ring is contiguous there (later hosts do more); Star has anchors of a whole block; APB's lengths are those of Figure 1.
The times were taken from Hugging Face code (transformers 4.45.2, by the repository's environment.yml), whose
memory-bound parts are eager operators: priced as such (`simulator.replay.eager`).
MInference builds its index in Python at 32K; its heads' pattern is the released one. Nothing is fitted.

Source: Huang et al. 2025, arXiv 2502.12085, Table 14 (Figure 1) and appendix E.5.
"""

from __future__ import annotations

from cost_models.models import load_model
from simulator.replay.eager import EagerCosts
from simulator.replay.models import MAX_GPUS, MAX_SEQ_LEN, Cluster, Run, value_of
from simulator.replay.rows import Row, Skip
from simulator.replay.source import Source

SCHEDULES = {
    "FlashAttn": "flash",
    "Ulysses": "ulysses",
    "RingAttn": "ring:partition=contiguous",
    "StarAttn": "star",
    "MInference": "minference",
}


def schedule_of(method: str, seq_len: int) -> str:
    """The schedule of a method; APB with the lengths of Figure 1."""
    if method == "APB":
        passing = min(2048, seq_len // 64)
        return f"apb:anchor={2 * passing},passing={passing}"
    if method not in SCHEDULES:
        raise Skip(f"no schedule for {method[:60] or 'an unnamed method'}")
    return SCHEDULES[method]


class ApbPrefill(Source):
    """Prefill of a whole model."""

    name = "apb-prefill"
    title = "APB's prefill times by length, A800"

    def claims(self, row: Row) -> bool:
        """Rows of Table 14."""
        return "2502.12085" in row["source"] and "Table 14" in row["table_or_figure"]

    def predict(self, row: Row) -> float:
        """Seconds."""
        gpus, seq_len = row.integer("n_gpus", MAX_GPUS), row.integer("seq_len", MAX_SEQ_LEN)
        run = Run(load_model("llama-3.1-8b"), schedule_of(row["method"], seq_len), gpus, seq_len, "prefill")
        return value_of(row, self.cluster.outcome(run), run)

    cluster = Cluster("dgx-a100", "a800", costs=EagerCosts)


SOURCE = ApbPrefill()

"""APB's FLOP of a prefill, over all hosts: 8B Llama shape, 512K tokens; and the time they take at the peak.

Ours are counted by the Program (pairs that the mask allows, every product that runs); the slides' follow from Table 9
of the paper, which counts a multiply-add of the passing block as one FLOP and lets the anchor's rows see it. Nothing is
fitted.

    time at the peak = FLOP / (hosts x 312 TFLOP/s)

Source: Huang et al. 2025, arXiv 2502.12085, Table 9 and appendix E.5; slides of its talk at ACL 2025.
"""

from __future__ import annotations

from cost_models.models import load_model
from simulator.replay.models import MAX_GPUS, MAX_SEQ_LEN, Cluster, Run
from simulator.replay.rows import Row, Skip
from simulator.replay.source import Source
from simulator.replay.sources.apb_prefill import schedule_of

PEAK_FLOP_PER_S = 312e12
"""Dense bf16 of an A800, as on the slides."""


class ApbFlop(Source):
    """What a prefill computes."""

    name = "apb-flop"
    title = "APB's FLOP of a prefill"

    def claims(self, row: Row) -> bool:
        """Rows of the slides that give totals."""
        return "APB ACL-2025 oral slides" in row["source"]

    def predict(self, row: Row) -> float:
        """FLOP over all hosts, or their seconds at the peak."""
        gpus, seq_len = row.integer("n_gpus", MAX_GPUS), row.integer("seq_len", MAX_SEQ_LEN)
        run = Run(load_model("llama-3.1-8b"), schedule_of(row["method"], seq_len), gpus, seq_len, "prefill")
        flop = self.cluster.outcome(run).flop
        if row["unit"] == "FLOP" and "total" in row["metric"]:
            return float(flop)
        if row["unit"] == "s" and "at peak" in row["metric"]:
            return flop / (gpus * PEAK_FLOP_PER_S)
        raise Skip(f"no total of FLOP: {row['metric'][:60] or 'empty'}")

    cluster = Cluster("dgx-a100", "a800")


SOURCE = ApbFlop()

"""APB's breakdown of a transformer layer at 128K: 8B Llama shape on one and eight A800 (NVLink), six methods.

The authors put a barrier around every part, so nothing overlaps and a part takes as long as on its slowest rank:

    part = sum over its operations of the longest time on any rank,    of a layer: two layers less one

Ring is contiguous; its communication is what is left of the ring beside attention. Parts are QKV projections, the
retaining head (APB), communication, attention (selection's copies and merges included), O projection, feed-forward, and
others: norms, rotary embedding, residual sums, as eager Hugging Face code (`simulator.replay.eager`). The second pass
of the query is not in the table. Nothing is fitted.

Source: Huang et al. 2025, arXiv 2502.12085, Table 16 (Figure 5) and appendix E.5.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np

from cost_models.hardware import load_hardware
from cost_models.models import load_model
from cost_models.topology import load_topology
from simulator.costing import CostModel
from simulator.program.operations import Operation
from simulator.program.tape import Ignore
from simulator.replay.eager import EagerCosts
from simulator.replay.rows import Row, Skip
from simulator.replay.source import Source
from simulator.replay.sources.apb_prefill import SCHEDULES
from simulator.request import SimulationRequest
from simulator.schedules import parse_schedule
from simulator.steps.record import subject_of

PARTS = {
    "QKV projection time per layer": "qkv", "attention time per layer": "attention", "O projection time per layer": "o",
    "FFN time per layer": "ffn", "others time per layer": "others", "retaining head time per layer": "retaining",
    "communication time per layer": "communication", "transformer block total time per layer": "total",
}  # fmt: skip
WEIGHTS = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "o_proj": "o", "gate_proj": "ffn", "up_proj": "ffn",
           "down_proj": "ffn"}  # fmt: skip
OTHERS = ("rms_norm", "rope", "add")


class Parts(Ignore):
    """Nanoseconds of each part, operations one after the other."""

    def __init__(self, costs: CostModel) -> None:
        self._costs = costs
        self.ns: Counter[str] = Counter()

    def operation(self, operation: Operation) -> None:
        """Add an operation's time on its slowest rank."""
        self.ns[part_of(operation)] += int(np.max(self._costs.device_ns(operation)))


def part_of(operation: Operation) -> str:
    """Which part of a layer an operation belongs to."""
    if operation.category == "communication":
        return "communication"
    if operation.kind in ("linear", "swiglu"):
        names = [buffer.name.rsplit(".", 1)[-1] for buffer in operation.reads]
        return "ffn" if operation.kind == "swiglu" else next((WEIGHTS[n] for n in names if n in WEIGHTS), "ends")
    if operation.kind == "score":
        return "retaining"
    if operation.kind in OTHERS:
        return "others"
    return "ends" if operation.kind in ("embed", "take_tokens") else "attention"


class ApbBreakdown(Source):
    """Parts of a layer's prefill."""

    name = "apb-breakdown"
    title = "APB's breakdown of a layer at 128K, A800"

    def claims(self, row: Row) -> bool:
        """Rows of Table 16."""
        return "2502.12085" in row["source"] and "Table 16" in row["table_or_figure"]

    def predict(self, row: Row) -> float:
        """Milliseconds."""
        if row["metric"] not in PARTS:
            raise Skip(f"no part of a layer: {row['metric'][:60] or 'empty'}")
        schedule = "apb:anchor=4096,passing=2048" if row["method"] == "APB" else SCHEDULES.get(row["method"])
        if schedule is None:
            raise Skip(f"no schedule for {row['method'][:60] or 'an unnamed method'}")
        parts, part = layer_ms(schedule, row.integer("n_gpus", 8), row.integer("seq_len", 2**18)), PARTS[row["metric"]]
        return sum(parts.values()) if part == "total" else parts[part]


@cache
def layer_ms(schedule: str, gpus: int, seq_len: int) -> dict[str, float]:
    """Milliseconds of each part of a layer."""
    one, two = (_parts(schedule, gpus, seq_len, layers) for layers in (1, 2))
    return {part: (two[part] - one[part]) / 1e6 for part in PARTS.values() if part != "total"}


def _parts(schedule: str, gpus: int, seq_len: int, layers: int) -> Counter[str]:
    topology, profile = load_topology("dgx-a100", gpus, gpu="a800"), load_hardware("a800")
    request = SimulationRequest(
        model=replace(load_model("llama-3.1-8b"), layers=layers), schedule=schedule, gpus=gpus, seq_len=seq_len,
        pass_="prefill", topology=topology, hardware="a800", kernel="flash2", layers="model",
    )  # fmt: skip
    parts = Parts(EagerCosts(topology, profile, "flash2"))
    subject_of(parse_schedule(schedule), request.resolve()).record(parts)
    return parts.ns


SOURCE = ApbBreakdown()

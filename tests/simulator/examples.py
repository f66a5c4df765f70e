"""Results made up for tests of what is done with results."""

from __future__ import annotations

from typing import Any

from simulator.request import SimulationRequest
from simulator.result import SimulationResult, Uncertainty
from traces.timeline import OperationInfo, Timeline

REQUEST = SimulationRequest(model="llama-3.1-8b", seq_len="128k", gpus=2, topology="h200-nvlink-pair", schedule="ring")


def example_timeline() -> Timeline:
    infos = (
        OperationInfo(0, "attention", "attention_forward", "forward", 0, "compute"),
        OperationInfo(1, "send KV", "exchange", "forward", 0, "communication"),
    )
    return Timeline(infos, ("compute", "ring"), 2, [0, 0, 0, 0], [5, 5, 7, 7], [0, 1, 0, 1], [0, 0, 1, 1],
                    [0, 0, 1, 1], [0, 0, 8, 8])  # fmt: skip


def example_result(
    schedule: str = "ring:partition=zigzag,grad=fp32", time_s: float = 0.012, **changes: Any
) -> SimulationResult:
    fields: dict[str, Any] = {
        "schedule": schedule,
        "inputs": REQUEST.resolve().inputs,
        "engine": "maxplus",
        "provenance": {"attention": "calibrated", "network": {"nvlink": "calibrated"}},
        "warnings": ("links are not shared",),
        "time_s": time_s,
        "forward_s": time_s / 3,
        "backward_s": time_s * 2 / 3,
        "compute_s": time_s * 0.9,
        "communication_s": time_s * 0.5,
        "exposed_communication_s": time_s * 0.1,
        "peak_memory_bytes": 5 * 2**30,
        "fits": True,
        "exact": True,
        "bytes_sent_per_rank": (2**30, 2**30),
        "pairs_total": 8_590_000_128,
        "flop_total": 10**15,
        "uncertainty": Uncertainty(time_s * 0.95, time_s * 1.05),
    }
    return SimulationResult(**(fields | changes))

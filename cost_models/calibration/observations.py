"""From records to what a fit compares with: one time per record, of the operation alone on a rested GPU.

The power limit lowers the clock after some 25 ms of hard work, so samples taken without a rest slow down one after the
other. The time of a record is therefore the median of the samples that began within its first 20 ms of work, the first
one at least. Calls without a rest are their own kind (``sustained``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from cost_models.calibration.attention import AttentionSample
from cost_models.kernels import AttentionShape
from cost_models.masks import KernelCall, Segment
from traces.records import CalibrationRecord

RESTED_S = 0.02

PassKey = tuple[str, str, int]


def isolated_s(record: CalibrationRecord) -> float:
    """Seconds of the recorded operation on a rested GPU.

    >>> slows_down = CalibrationRecord("gemm", {}, "measured", (0.015, 0.015, 0.018, 0.02), "machine")
    >>> isolated_s(slows_down)
    0.015
    """
    worked, rested = 0.0, []
    for sample in record.samples_s:
        if worked <= RESTED_S:
            rested.append(sample)
        worked += sample
    ordered = sorted(rested)
    return ordered[(len(ordered) - 1) // 2]


def attention_samples(records: Iterable[CalibrationRecord]) -> dict[PassKey, list[AttentionSample]]:
    """Measured calls by (kernel, direction, head dim); not those that were given delta."""
    found: dict[PassKey, list[AttentionSample]] = {}
    for record in records:
        if record.kind == "attention" and record.samples_s and not record.parameters.get("delta"):
            sample = _sample(record)
            key = str(record.parameters["kernel"]), sample.direction, sample.shape.head_dim
            found.setdefault(key, []).append(sample)
    return found


def _sample(record: CalibrationRecord) -> AttentionSample:
    p = record.parameters
    number = {name: cast(int, value) for name, value in p.items()}
    segment = Segment(0, number["rows"], 0, number["columns"])
    dim = number["head_dim"]
    shape = AttentionShape(number["batch"], number["heads"], number["kv_heads"], dim, dim, str(p["dtype"]))
    call = KernelCall((segment,), number["left"], number["right"])
    return AttentionSample(call, shape, str(p["direction"]), isolated_s(record))

"""From records to what a fit compares with: one time per record, of the operation alone on a rested GPU.

The power limit lowers the clock after some 25 ms of hard work, so samples taken without a rest slow down one after the
other. The time of a record is therefore the median of the samples that began within its first 20 ms of work, the first
one at least. Calls without a rest are their own kind (``sustained``).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import cast

from cost_models.calibration.attention import AttentionSample
from cost_models.kernels import AttentionShape
from cost_models.masks import KernelCall, Segment
from traces.records import CalibrationRecord

RESTED_S = 0.02
TRAIN_EDGES_S = (0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FEW_ROWS = 128
"""Queries up to which a call may split its keys, which is another kernel (`cost_models.kernels.split_keys`)."""

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


def train_samples(record: CalibrationRecord) -> Iterator[AttentionSample]:
    """Medians of a train of calls without a rest, by the time worked before; what a first second brings.

    In its last third slower controls of power and temperature join in (clocks 20 to 30 % below the highest on an H100),
    which the one loss of the model has to stand for.
    """
    sample = to_sample(record)
    worked = list(accumulate(record.samples_s, initial=0.0))
    for start, stop in pairwise(TRAIN_EDGES_S):
        chosen = [s for s, before in zip(record.samples_s[1:], worked[1:], strict=False) if start <= before < stop]
        if chosen:
            yield replace(sample, seconds=statistics.median(chosen), worked_s=(start + stop) / 2)


def attention_samples(records: Iterable[CalibrationRecord]) -> dict[PassKey, list[AttentionSample]]:
    """Measured calls by (kernel, direction, head dim), alone and in trains without rests.

    Not those of few queries, nor those that were given delta.
    """
    found: dict[PassKey, list[AttentionSample]] = {}
    for record in records:
        if record.kind == "attention" and record.samples_s and not record.parameters.get("delta"):
            sample = to_sample(record)
            if sample.rows <= FEW_ROWS:
                continue
            key = str(record.parameters["kernel"]), sample.direction, sample.shape.head_dim
            found.setdefault(key, []).append(sample)
        elif record.kind == "sustained" and record.samples_s:
            for sample in train_samples(record):
                key = str(record.parameters["kernel"]), sample.direction, sample.shape.head_dim
                found.setdefault(key, []).append(sample)
    return found


def to_sample(record: CalibrationRecord) -> AttentionSample:
    """The call of an attention record, and its time."""
    p = record.parameters
    number = {name: cast(int, value) for name, value in p.items()}
    dim = number["head_dim"]
    shape = AttentionShape(number["batch"], number["heads"], number["kv_heads"], dim, dim, str(p["dtype"]))
    edges = [0, *accumulate(int(each) for each in str(p.get("documents", "")).split("+") if each)]
    documents = tuple(Segment(start, stop, start, stop) for start, stop in pairwise(edges))
    segments = documents or (Segment(0, number["rows"], 0, number["columns"]),)
    call = KernelCall(segments, number["left"], number["right"])
    return AttentionSample(call, shape, str(p["direction"]), isolated_s(record), kernel=str(p["kernel"]))

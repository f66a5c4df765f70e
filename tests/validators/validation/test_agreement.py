"""What agreement says of a run, on timelines whose answers are known."""

from __future__ import annotations

import pytest

from traces.timeline import OperationInfo, Timeline
from validators.validation.agreement import Agreement, compare_run, order, summarise
from validators.validation.forecast import Prediction
from validators.validation.runs import Configuration, MeasuredRun

CONFIGURATION = Configuration(1024, 8, 8, 64, 1, "causal", "fp32", "cpu", 2, 2)
INFOS = (
    OperationInfo(0, "attention", "attention_forward", "forward", 0, "compute"),
    OperationInfo(1, "hop", "exchange", "forward", 0, "communication"),
)


def timeline(compute_ns: int, hop_ns: tuple[int, int]) -> Timeline:
    """Both ranks compute from 0 on and communicate after that, one of them longer as it waits for the other."""
    ends = [compute_ns, compute_ns, compute_ns + hop_ns[0], compute_ns + hop_ns[1]]
    return Timeline(
        INFOS, ("compute", "comm:ring"), 2, [0, 0, compute_ns, compute_ns], ends, [0, 1, 0, 1], [0, 0, 1, 1],
        [0, 0, 1, 1], [0, 0, 8, 8],
    )  # fmt: skip


def agreement(schedule: str, measured_s: float, predicted_s: float) -> Agreement:
    run = MeasuredRun(CONFIGURATION, schedule, "measured", "gloo", (measured_s,) * 3, instrumented_s=1.1 * measured_s)
    return compare_run(run, Prediction(predicted_s, 0.9 * predicted_s, 1.1 * predicted_s, 100, None), None)


def test_errors_of_a_run() -> None:
    run = MeasuredRun(CONFIGURATION, "ring", "measured", "gloo", (8e-6, 10e-6, 14e-6), 12e-6, peak_memory_bytes=80)
    predicted = Prediction(11e-6, 9e-6, 13e-6, 100, timeline(9_000, (2_000, 2_000)))
    found = compare_run(run, predicted, timeline(8_000, (4_000, 1_000)))
    assert found.error == pytest.approx(0.1)
    assert found.within
    assert found.memory_error == pytest.approx(0.25)
    assert found.inflation == pytest.approx(0.2)
    assert found.exposed_error == pytest.approx((2 - 4) / 12)
    kinds = {kind.kind: (kind.predicted_s, kind.measured_s) for kind in found.kinds}
    assert kinds["attention_forward"] == pytest.approx((9e-6, 8e-6))
    assert kinds["exchange"] == pytest.approx((2e-6, 1e-6)), "what the rank took that had to wait least"


def test_order_counts_pairs_that_are_apart() -> None:
    some = [agreement("a", 1.0, 1.0), agreement("b", 1.03, 0.9), agreement("c", 2.0, 0.95)]
    assert order(some) == (1, 2)  # a-b is too close; a-c is wrong, b-c right


def test_coverage_and_its_probability() -> None:
    inside, outside = [agreement("a", 1.0, 1.0)] * 6, [agreement("a", 2.0, 1.0)] * 4
    summary = summarise(inside + outside)
    assert summary["in_90_percent_interval"] == pytest.approx(0.6)
    assert summary["probability_of_so_few"] == pytest.approx(0.0128, abs=1e-3)

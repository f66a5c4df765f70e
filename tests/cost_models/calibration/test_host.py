"""The host's terms are the medians of the operations that it issued, told apart by their turn in a call."""

from __future__ import annotations

import pytest

from cost_models.calibration.host import fit_host
from traces.records import CalibrationRecord, Value


def record(seconds: float, **parameters: Value) -> CalibrationRecord:
    samples = (seconds / 2, seconds, 9 * seconds)  # the median is what counts
    return CalibrationRecord("host", parameters, "measured", samples, "m")


def issue(operation: str, turn: str, seconds: float, **more: Value) -> CalibrationRecord:
    return record(seconds, what="issue", operation=operation, turn=turn, **more)


def test_later_operations_are_the_kind_and_first_ones_take_more() -> None:
    terms = fit_host([
        issue("linear", "first", 50e-6), issue("linear", "later", 10e-6),
        issue("add", "first", 26e-6), issue("add", "later", 6e-6),
        issue("embed", "first", 45e-6), issue("merge", "alone", 8e-6),
        issue("row_dot", "first", 41e-6), issue("row_dot", "alone", 11e-6), issue("exchange", "alone", 70e-6),
    ])  # fmt: skip
    assert terms.first == pytest.approx({"linear": 40e-6, "add": 20e-6, "row_dot": 30e-6})
    assert terms.first_s == pytest.approx(30e-6)
    assert terms.kinds == pytest.approx(
        {"linear": 10e-6, "add": 6e-6, "embed": 22.5e-6, "merge": 8e-6, "row_dot": 11e-6}
    )
    assert terms.kernel_s == pytest.approx(10e-6)


def test_attention_is_priced_by_one_launch_of_each_kernel() -> None:
    terms = fit_host([
        issue("attention_forward", "first", 100e-6, kernel="cudnn", launches=1, segments=1, delta=False),
        issue("attention_forward", "later", 40e-6, kernel="cudnn", launches=1, segments=1, delta=False),
        issue("attention_forward", "first", 80e-6, kernel="flash2", launches=1, segments=1, delta=False),
        issue("attention_forward", "later", 30e-6, kernel="flash2", launches=1, segments=1, delta=False),
        issue("attention_forward", "first", 500e-6, kernel="cudnn", launches=3, segments=3, delta=False),
        issue("attention_forward", "later", 900e-6, kernel="cudnn", launches=1, segments=3, delta=False),
        issue("attention_backward", "later", 900e-6, kernel="cudnn", launches=1, segments=1, delta=True),
        record(90e-6, what="attention", kernel="triton", direction="backward"), record(14e-6, what="cast"),
    ])  # fmt: skip
    assert terms.kinds == pytest.approx({"cudnn_forward": 40e-6, "flash2_forward": 30e-6})
    assert terms.attention == pytest.approx({"triton.backward": 90e-6})
    assert terms.first == pytest.approx({"attention_forward": 55e-6})
    assert terms.kernel_s == pytest.approx(14e-6)


def test_older_records_have_calls_only() -> None:
    terms = fit_host([record(10e-6, what="cast"), record(20e-6, what="gemm"), record(500e-6, what="start")])
    assert terms.kernel_s == pytest.approx(15e-6)
    assert terms.terms == {"kernel_s": pytest.approx(15e-6)} and terms.tables == {}
    assert fit_host([]).terms == {}

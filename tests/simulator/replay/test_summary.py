"""Errors and ordering from rows made by hand."""

import pytest

from simulator.replay import ReplayRow, summarise


def row(method, published, predicted, configuration="a", *, in_fit=False):
    error = predicted / published - 1
    return ReplayRow("s", method, (configuration,), "ms", predicted, published, error, "some rows", in_fit)


def test_errors_leave_out_fitted_and_skipped_rows():
    rows = [
        row("x", 10, 11),
        row("x", 10, 7),
        row("y", 10, 20, in_fit=True),
        ReplayRow("s", "y", (), "ms", skipped="why"),
    ]
    whole, x, y = summarise(rows)
    assert (whole.source, whole.method, whole.rows, whole.fitted, whole.skipped) == ("s", None, 2, 1, 1)
    assert (whole.median, whole.bias) == (pytest.approx(0.2), pytest.approx(-0.1))
    assert whole.p95 == pytest.approx(0.29)
    assert (x.method, x.rows, y.rows, y.median, y.fitted, y.skipped) == ("x", 2, 0, None, 1, 1)


def test_pairs_of_one_configuration_that_differ_as_published():
    rows = [
        row("x", 10, 10),
        row("y", 12, 11),  # differs, right
        row("z", 10.5, 9),  # within 10 % of x; 14 % below y, right
        row("x", 10, 10, "b"),
        row("y", 20, 9, "b"),  # wrong
        row("z", 20, 10, "b"),  # a tie is no order: wrong against x
    ]
    whole = summarise(rows)[0]
    assert (whole.pairs, whole.ordered) == (4, 2)


def test_rows_of_no_source_are_in_no_summary():
    assert summarise([ReplayRow("", "x", (), "ms", skipped="not a row")]) == []

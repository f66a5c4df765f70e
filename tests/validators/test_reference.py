"""The reference in blocks equals the dense formulas; its measure of error sees what is wrong."""

from __future__ import annotations

import pytest
import torch

from tests.validators.executors.cases import Case, dense_results, scaled_inputs
from validators import reference
from validators.reference import reference_columns, reference_rows, relative_error


@pytest.mark.parametrize("mask", ["causal", "document:lengths=10+17+21", "sliding-window:window=7"])
def test_blocks_equal_dense(mask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "BLOCK_PAIRS", 5 * 48)
    case = Case("ring", 1, mask, kv_heads=2, batch=2)
    inputs = scaled_inputs(case.setup)
    whole, dense = reference.reference(inputs, case.setup.workload.mask), dense_results(case.setup, inputs)
    for name, want in dense.items():
        assert relative_error(whole[name], want) < 1e-13


def test_samples_are_rows_and_columns_of_the_whole() -> None:
    case = Case("ring", 1, kv_heads=4)
    inputs, mask = scaled_inputs(case.setup), case.setup.workload.mask
    chosen, whole = torch.tensor([3, 17, 40]), reference.reference(inputs, mask)
    rows = reference_rows(inputs, mask, chosen)
    columns = reference_columns(inputs, mask, chosen, whole["lse"], whole["delta"])
    for name, sample in (rows | columns).items():
        dim = 2 if name in ("lse", "delta") else 1
        assert relative_error(sample, whole[name].index_select(dim, chosen)) < 1e-13


def test_an_lse_that_should_be_minus_infinity_is_seen() -> None:
    want = torch.tensor([1.0, -torch.inf])
    assert relative_error(want.clone(), want) == 0
    assert relative_error(torch.tensor([1.0, -50.0]), want) == torch.inf

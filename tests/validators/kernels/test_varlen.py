"""Segments as sequences of one variable-length call: the same pairs, and nothing else."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from cost_models.kernels import split_call
from cost_models.masks import KernelCall, Segment
from validators.kernels.varlen import (
    flatten_lse,
    list_sequences,
    unflatten_lse,
    window_is_kept,
)

SEGMENTS = {
    "next to each other": (Segment(0, 4, 0, 5), Segment(4, 9, 5, 9)),
    "gaps": (Segment(1, 3, 2, 4), Segment(5, 6, 4, 8)),
    "gaps at both ends": (Segment(2, 5, 1, 3),),
    "gap of rows only": (Segment(0, 2, 0, 4), Segment(6, 9, 4, 9)),
}


def pairs(call: KernelCall, batch: int, rows: int, columns: int) -> torch.Tensor:
    """Which rows of all batch rows meet which columns."""
    met = torch.zeros(batch * rows, batch * columns, dtype=torch.bool)
    for each in range(batch):
        for s in call.segments:
            met[
                each * rows + s.q_start : each * rows + s.q_stop, each * columns + s.k_start : each * columns + s.k_stop
            ] = True
    return met


@pytest.mark.parametrize("name", SEGMENTS)
@pytest.mark.parametrize("batch", [1, 3])
def test_sequences_are_the_segments_of_every_batch_row(name: str, batch: int) -> None:
    call = KernelCall(SEGMENTS[name], None, 0)
    found = list_sequences(call, batch, 9, 9, torch.device("cpu"))
    met = torch.zeros(batch * 9, batch * 9, dtype=torch.bool)
    rows, columns = found.rows.tolist(), found.columns.tolist()
    assert (rows[0], columns[0], rows[-1], columns[-1]) == (0, 0, batch * 9, batch * 9)
    for (q, q_end), (k, k_end) in zip(pairwise(rows), pairwise(columns), strict=True):
        assert q <= q_end and k <= k_end
        met[q:q_end, k:k_end] = True
    assert torch.equal(met, pairs(call, batch, 9, 9))
    assert found.most_rows == max(s.q_stop - s.q_start for s in call.segments)


def test_lse_there_and_back() -> None:
    lse = torch.randn(2, 3, 5)
    flat = flatten_lse(lse)
    assert flat.is_contiguous() and flat[1, 5 + 2] == lse[1, 1, 2]
    assert torch.equal(unflatten_lse(flat, 2), lse)


@pytest.mark.parametrize(("rows", "columns", "left", "right", "kept"), [
    (9, 4, None, 0, True), (9, 4, None, 5, False), (9, 4, None, 8, True), (9, 4, 2, None, False),
    (5, 4, 2, None, True), (4, 9, 7, 7, True), (9, 4, None, None, True),
])  # fmt: skip
def test_windows_that_the_interface_garbles_are_not_told_to_it(
    rows: int, columns: int, left: int | None, right: int | None, kept: bool
) -> None:
    call = KernelCall((Segment(0, rows, 0, columns), Segment(rows, rows + 1, columns, columns + 1)), left, right)
    assert window_is_kept(call) == kept


def test_launches_together_are_the_segments() -> None:
    segments = (Segment(0, 2, 4, 6), Segment(2, 4, 0, 4), Segment(4, 5, 6, 9), Segment(5, 6, 4, 9))
    launches = split_call(KernelCall(segments, 3, 0), varlen=True)
    assert {s for launch in launches for s in launch.segments} == set(segments)
    for launch in launches:
        for one, other in zip(launch.segments, launch.segments[1:], strict=False):
            assert one.q_stop <= other.q_start and one.k_stop <= other.k_start

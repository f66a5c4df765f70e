"""Schedules with a kernel that takes several segments at once, as flash-attention's variable-length interface does."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from cost_models.masks import KernelCall
from tests.validators.executors.cases import Case, dense_results, scaled_inputs, worst_error
from validators.dense import dense_backward, dense_forward, row_dot
from validators.executors.loopback import Loopback
from validators.kernels.dense import DenseKernel, window
from validators.kernels.varlen import (
    Sequences,
    flatten,
    flatten_lse,
    list_sequences,
    unflatten,
    unflatten_lse,
)


class PackedDense(DenseKernel):
    """Dense attention, sequence by sequence of a packed launch; NaN where a sequence has no rows or columns."""

    def __init__(self) -> None:
        self.launched: list[int] = []

    def takes_segments(self, call: KernelCall) -> bool:
        self.launched.append(len(call.segments))
        return True

    def forward_segments(self, q: Tensor, k: Tensor, v: Tensor, call: KernelCall) -> tuple[Tensor, Tensor]:
        found, batch = list_sequences(call, *q.shape[:2], k.shape[1], q.device), q.shape[0]
        q, k, v = map(flatten, (q, k, v))
        o, lse = torch.full((*q.shape[:2], v.shape[2]), torch.nan).to(q), torch.full(q.shape[1::-1], torch.nan).to(q)
        for rows, columns in sequences(found):
            allowed = window(call, rows.stop - rows.start, columns.stop - columns.start)
            part, part_lse = dense_forward(q[None, rows], k[None, columns], v[None, columns], allowed)
            o[rows], lse[:, rows] = part[0], part_lse[0]
        return unflatten(o, batch), unflatten_lse(lse, batch)

    def backward_segments(
        self, q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor, row: Tensor, call: KernelCall, *, delta: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        found, batch = list_sequences(call, *q.shape[:2], k.shape[1], q.device), q.shape[0]
        rows_of = flatten_lse(row if delta else row_dot(do, row))
        q, k, v, do, lse = *map(flatten, (q, k, v, do)), flatten_lse(lse)
        gradients = tuple(torch.full_like(each, torch.nan) for each in (q, k, v))
        for rows, columns in sequences(found):
            allowed = window(call, rows.stop - rows.start, columns.stop - columns.start)
            parts = dense_backward(
                q[None, rows], k[None, columns], v[None, columns], do[None, rows], lse[None, :, rows],
                rows_of[None, :, rows], allowed,
            )  # fmt: skip
            for total, part, where in zip(gradients, parts, (rows, columns, columns), strict=True):
                total[where] = part[0]
        dq, dk, dv = (unflatten(each, batch) for each in gradients)
        return dq, dk, dv


def sequences(found: Sequences) -> list[tuple[slice, slice]]:
    pairs = zip(pairwise(found.rows.tolist()), pairwise(found.columns.tolist()), strict=True)
    return [(slice(*rows), slice(*columns)) for rows, columns in pairs if rows[0] < rows[1] and columns[0] < columns[1]]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("mask", ["document:lengths=10+17+21,causal=true", "document:lengths=5+3+40", "causal"])
@pytest.mark.parametrize("spec", [
    "flash", "ring", "ring:partition=contiguous", "burst", "ulysses", "allgather", "magi", "share",
])  # fmt: skip
def test_equals_dense_attention(spec: str, mask: str, batch: int) -> None:
    if spec == "share":
        spec, mask = "ring", "share-question:lengths=10+17+21"
    case = Case(spec, 1 if spec == "flash" else 4, mask, kv_heads=4, batch=batch)
    kernel, inputs, program = PackedDense(), scaled_inputs(case.setup), case.build()
    loopback = Loopback(program, inputs, kernel)
    program.replay(loopback)
    assert worst_error(loopback.results, dense_results(case.setup, inputs)) < 1e-12
    assert ("document" not in mask) or max(kernel.launched, default=0) > 1


def test_documents_are_one_launch() -> None:
    kernel, case = PackedDense(), Case("flash", 1, "document:lengths=10+17+21,causal=true")
    program = case.build()
    program.replay(Loopback(program, scaled_inputs(case.setup), kernel))
    assert kernel.launched == [3, 3]

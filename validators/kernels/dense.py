"""Attention of a segment by the dense formulas, on any device and dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from cost_models.masks import KernelCall
from validators.dense import dense_backward, dense_forward, row_dot


class DenseKernel:
    """Every score is materialised."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, call: KernelCall) -> tuple[Tensor, Tensor]:
        """(o, lse)."""
        return dense_forward(q, k, v, window(call, q.shape[1], k.shape[1], q.device))

    def backward(
        self, q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor, row: Tensor, call: KernelCall, *, delta: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv)."""
        rows = row if delta else row_dot(do, row)
        return dense_backward(q, k, v, do, lse, rows, window(call, q.shape[1], k.shape[1], q.device))


def window(call: KernelCall, rows: int, columns: int, device: torch.device | str = "cpu") -> Tensor:
    """Which keys a row of a segment sees: flash-attention's window at the bottom right corner."""
    columns_of, rows_of = torch.arange(columns, device=device), torch.arange(rows, device=device)
    apart = columns_of[None, :] - rows_of[:, None] - (columns - rows)
    allowed = torch.ones(rows, columns, dtype=torch.bool, device=device)
    if call.left is not None:
        allowed &= apart >= -call.left
    if call.right is not None:
        allowed &= apart <= call.right
    return allowed

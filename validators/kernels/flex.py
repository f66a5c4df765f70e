"""FlexAttention, compiled: one launch for any mask, here for windows.

Block masks are built once per window and shape. FlexAttention has no backward of its own to call, so the forward of
these keys, (o_i, lse_i), is computed again and differentiated. What a schedule asks for are the gradients under the LSE
and delta of *all* keys; with O = sum_i w_i o_i, w_i = exp(lse_i - lse), they are those of

    do_i = w_i dO,    dlse_i = w_i (rowsum(dO o_i) - delta)

Source: PyTorch torch/nn/attention/flex_attention.py.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from cost_models.masks import KernelCall
from validators.dense import row_dot


class FlexKernel:
    """FlexAttention for windows."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, call: KernelCall) -> tuple[Tensor, Tensor]:
        """(o, lse)."""
        return _attend(q, k, v, call)

    def backward(
        self, q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor, row: Tensor, call: KernelCall, *, delta: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv)."""
        leaves = [each.detach().requires_grad_() for each in (q, k, v)]
        with torch.enable_grad():
            part, part_lse = _attend(*leaves, call)
        weight, wide = torch.exp(part_lse.detach() - lse), do.float()
        rows = row if delta else row_dot(wide, row.float())
        change = weight * (row_dot(wide, part.detach().float()) - rows)
        weighted = (weight.transpose(1, 2).unsqueeze(-1) * wide).to(part.dtype)
        dq, dk, dv = torch.autograd.grad((part, part_lse), leaves, (weighted, change))
        return dq, dk, dv


def _attend(q: Tensor, k: Tensor, v: Tensor, call: KernelCall) -> tuple[Tensor, Tensor]:
    from torch.nn.attention.flex_attention import AuxRequest

    mask = _block_mask(q.shape[1], k.shape[1], call.left, call.right, str(q.device))
    heads_first = [each.transpose(1, 2) for each in (q, k, v)]
    o, extra = _compiled()(
        *heads_first, block_mask=mask, enable_gqa=q.shape[2] != k.shape[2], return_aux=AuxRequest(lse=True)
    )
    return o.transpose(1, 2), extra.lse


@cache
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


@cache
def _block_mask(rows: int, columns: int, left: int | None, right: int | None, device: str) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    if left is None and right is None:
        return None
    offset = columns - rows

    def allowed(batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        apart = j - i - offset
        inside = apart <= (columns if right is None else right)
        return inside & (apart >= (-columns - rows if left is None else -left))

    return torch.compile(create_block_mask)(allowed, None, None, rows, columns, device=device)

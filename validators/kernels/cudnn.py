"""cuDNN's fused attention through PyTorch: the fast one on Hopper.

PyTorch lets it do full attention, and causal attention aligned at the top left corner; so a causal segment with more
keys than queries is a full one before the diagonal block, merged by LSE. What is known to go wrong is kept out
(`ecosystem.md` section 2): gradients and outputs whose strides differ (all made contiguous), explicit masks (none).
Source: PyTorch aten/src/ATen/native/cudnn/MHA.cpp; pytorch issues 176915 and 196678.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from cost_models.masks import KernelCall
from traces.errors import InputError
from validators.kernels.fused import merge_into, output_with_delta

Part = tuple[slice, slice, bool]


class CudnnKernel:
    """cuDNN, for full and causal segments."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, call: KernelCall) -> tuple[Tensor, Tensor]:
        """(o, lse)."""
        results = [
            _forward(q[:, rows], k[:, columns], v[:, columns], causal)
            for rows, columns, causal in _split(call, q.shape[1], k.shape[1])
        ]
        if len(results) == 1:
            return results[0]
        o, lse = results[0][0].float(), results[0][1].clone()
        merge_into(o, lse, *results[1])
        return o.to(q.dtype), lse

    def backward(
        self, q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor, row: Tensor, call: KernelCall, *, delta: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv)."""
        o = output_with_delta(do, row) if delta else row
        results = [
            _backward(q[:, rows], k[:, columns], v[:, columns], do[:, rows], lse[:, :, rows], o[:, rows], causal)
            for rows, columns, causal in _split(call, q.shape[1], k.shape[1])
        ]
        if len(results) == 1:
            return results[0]
        (dq, dk, dv), (dq_diagonal, dk_diagonal, dv_diagonal) = results
        return dq.add_(dq_diagonal), torch.cat([dk, dk_diagonal], dim=1), torch.cat([dv, dv_diagonal], dim=1)


def _split(call: KernelCall, rows: int, columns: int) -> Iterator[Part]:
    """(rows, columns, causal) of what cuDNN can do at once."""
    if call.left is None and call.right is None:
        yield slice(0, rows), slice(0, columns), False
        return
    if call.left is not None or call.right != 0 or rows > columns:
        raise InputError(
            "cudnn takes full and causal attention, not a window",
            got=f"left {call.left}, right {call.right}, {rows} rows, {columns} columns",
            remedy="use the kernel flash2, flex or triton",
        )
    if columns > rows:
        yield slice(0, rows), slice(0, columns - rows), False
    yield slice(0, rows), slice(columns - rows, columns), True


def _forward(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    o, lse, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), None, True, 0.0, causal, False
    )
    return o.transpose(1, 2), lse.view(lse.shape[:3])


def _backward(
    q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor, o: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    heads_first = [each.contiguous().transpose(1, 2) for each in (do, q, k, v, o)]
    gradients = torch.ops.aten._scaled_dot_product_cudnn_attention_backward(
        *heads_first, lse.contiguous().unsqueeze(-1), *_random_state(q.device), None, None, None, q.shape[1],
        k.shape[1], 0.0, causal,
    )  # fmt: skip
    dq, dk, dv = (each.transpose(1, 2) for each in gradients)
    return dq, dk, dv


@cache
def _random_state(device: torch.device) -> tuple[Tensor, Tensor]:
    """Of dropout, which there is none of."""
    return torch.zeros((), dtype=torch.int64, device=device), torch.zeros((), dtype=torch.int64, device=device)

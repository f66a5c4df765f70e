"""cuDNN's fused attention through PyTorch: the fast one on Hopper.

PyTorch lets it do full attention, and causal attention aligned at the top left corner; so a segment that a diagonal
crosses elsewhere is a causal square and full parts beside it, merged by LSE. Its variable-length interface
(`aten._cudnn_attention_forward`) builds a graph anew in every call, so that a launch has one segment. What is known to
go wrong is kept out (`ecosystem.md` section 2): gradients and outputs whose strides differ (all made contiguous),
explicit masks (none).
Source: PyTorch aten/src/ATen/native/cudnn/MHA.cpp; pytorch issues 176915 and 196678.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from cost_models.kernels import check_backward_size, split_call
from cost_models.masks import KernelCall, Segment
from traces.errors import InputError
from validators.kernels.fused import merge_into, output_with_delta

FORWARD = torch.ops.aten._scaled_dot_product_cudnn_attention.default
BACKWARD = torch.ops.aten._scaled_dot_product_cudnn_attention_backward.default


class Part(NamedTuple):
    """Rows and columns of a segment that cuDNN does at once."""

    rows: slice
    columns: slice
    causal: bool


class CudnnKernel:
    """cuDNN, for full segments and for causal ones, wherever their diagonal lies."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, call: KernelCall) -> tuple[Tensor, Tensor]:
        """(o, lse)."""
        parts = _split(q.shape[1], k.shape[1], call.left, call.right)
        if len(parts) == 1:
            return _forward(q, k, v, parts[0].causal)
        results = [_forward(q[:, part.rows], k[:, part.columns], v[:, part.columns], part.causal) for part in parts]
        o = q.new_zeros(*q.shape[:3], v.shape[3], dtype=torch.float32)
        lse = o.new_full((q.shape[0], q.shape[2], q.shape[1]), -torch.inf)
        for part, result in zip(parts, results, strict=True):
            merge_into(o[:, part.rows], lse[:, :, part.rows], *result)
        return o.to(q.dtype), lse

    def backward(
        self, q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor, row: Tensor, call: KernelCall, *, delta: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv)."""
        check_backward_size("cudnn", max(q.numel(), k.numel()))
        o = output_with_delta(do, row) if delta else row
        parts = _split(q.shape[1], k.shape[1], call.left, call.right)
        if len(parts) == 1:
            return _backward(q, k, v, do, lse, o, parts[0].causal)
        results = [
            _backward(
                q[:, p.rows], k[:, p.columns], v[:, p.columns], do[:, p.rows], lse[:, :, p.rows], o[:, p.rows], p.causal
            )
            for p in parts
        ]
        dq, dk, dv = (torch.zeros_like(each) for each in (q, k, v))
        for part, (part_dq, part_dk, part_dv) in zip(parts, results, strict=True):
            dq[:, part.rows] += part_dq
            dk[:, part.columns] += part_dk
            dv[:, part.columns] += part_dv
        return dq, dk, dv


@lru_cache(maxsize=4096)
def _split(rows: int, columns: int, left: int | None, right: int | None) -> list[Part]:
    """What cuDNN can do at once (`cost_models.kernels.split_call`)."""
    parts = split_call(KernelCall((Segment(0, rows, 0, columns),), left, right), varlen=False, top_left=True)
    if any(part.left is not None or part.right not in (None, 0) for part in parts):
        raise InputError(
            "cudnn takes full and causal attention, not a window",
            got=f"left {left}, right {right}, {rows} rows, {columns} columns",
            remedy="use the kernel flash2, flex or triton",
        )
    return [
        Part(slice(s.q_start, s.q_stop), slice(s.k_start, s.k_stop), part.right == 0)
        for part in parts
        for s in part.segments
    ]


def _forward(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    o, lse, *_ = FORWARD(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), None, True, 0.0, causal, False)
    return o.transpose(1, 2), lse.view(lse.shape[:3])


def _backward(
    q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor, o: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    heads_first = [each.contiguous().transpose(1, 2) for each in (do, q, k, v, o)]
    gradients = BACKWARD(
        *heads_first, lse.contiguous().unsqueeze(-1), *_random_state(q.device), None, None, None, q.shape[1],
        k.shape[1], 0.0, causal,
    )  # fmt: skip
    dq, dk, dv = (each.transpose(1, 2) for each in gradients)
    return dq, dk, dv


@cache
def _random_state(device: torch.device) -> tuple[Tensor, Tensor]:
    """Of dropout, which there is none of."""
    return torch.zeros((), dtype=torch.int64, device=device), torch.zeros((), dtype=torch.int64, device=device)

"""PyTorch's flash attention for CPUs: the kernel of the gloo executor, in fp32 or bf16.

It knows causal attention aligned at the top left corner, and additive masks for every other window. Heads of keys and
values are repeated for the queries of their group, and their gradients summed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cost_models.masks import KernelCall
from validators.kernels.dense import window
from validators.kernels.fused import output_with_delta


class CpuKernel:
    """Flash attention on a CPU."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, call: KernelCall) -> tuple[Tensor, Tensor]:
        """(o, lse)."""
        causal, mask = _causal_or_mask(q, k, call)
        o, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *_heads_first(q, k, v), 0.0, causal, attn_mask=mask
        )
        return o.transpose(1, 2), lse

    def backward(
        self, q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor, row: Tensor, call: KernelCall, *, delta: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv)."""
        causal, mask = _causal_or_mask(q, k, call)
        o = output_with_delta(do, row) if delta else row
        dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            do.transpose(1, 2), *_heads_first(q, k, v), o.transpose(1, 2), lse, 0.0, causal, attn_mask=mask
        )
        return dq.transpose(1, 2), _summed(dk, k), _summed(dv, v)


def _heads_first(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
    """[B, H, n, D] views; K and V with as many heads as Q."""
    group = q.shape[2] // k.shape[2]
    keys, values = (each.repeat_interleave(group, dim=2) if group > 1 else each for each in (k, v))
    return [each.transpose(1, 2) for each in (q, keys, values)]


def _causal_or_mask(q: Tensor, k: Tensor, call: KernelCall) -> tuple[bool, Tensor | None]:
    rows, columns = q.shape[1], k.shape[1]
    if call.left is None and call.right is None:
        return False, None
    if call.left is None and call.right == 0 and rows == columns:
        return True, None
    allowed = window(call, rows, columns, q.device)
    return False, torch.zeros(rows, columns, dtype=q.dtype, device=q.device).masked_fill_(~allowed, -torch.inf)


def _summed(gradient: Tensor, like: Tensor) -> Tensor:
    """[B, H, n, D] of query heads to [B, n, K, D]."""
    batch, tokens, heads, dim = like.shape
    return gradient.view(batch, heads, -1, tokens, dim).sum(dim=2).transpose(1, 2)

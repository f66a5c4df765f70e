"""Attention with stored scores (Ring Self-Attention), on one rank.

Weights are [B, rows, H, columns]; columns are tokens of the whole sequence. Source: Li et al. 2021 (arXiv 2105.13120).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from simulator.program.operations import Operation
from validators.executors.local import LocalOperations


def scores(local: LocalOperations, operation: Operation) -> None:
    """A block of columns of the weights: rows times visiting rows, over sqrt(D) if scaled."""
    (rows, columns), (weights,) = local.reads(operation), local.writes(operation)
    scale = 1 / math.sqrt(rows.shape[-1]) if operation.options["scaled"] else 1.0
    block = torch.einsum("bqhd,bkhd->bqhk", rows, _per_query_head(columns, rows.shape[2])) * scale
    weights[..., _visiting(local, operation, columns)] = block.to(weights.dtype)


def softmax(local: LocalOperations, operation: Operation) -> None:
    """Weights and LSE of the allowed pairs, from the scores as they are kept, in at least fp32."""
    weights, lse = local.writes(operation)
    layout = operation.writes[0].layout
    assert layout is not None
    rows = layout.tokens_of(local.store.rank)
    columns = torch.arange(weights.shape[-1]).numpy()
    allowed = torch.from_numpy(operation.options["mask"].allowed(rows[:, None], columns[None, :])).to(weights.device)
    wide = weights.to(torch.promote_types(weights.dtype, torch.float32))
    score = wide.masked_fill(~allowed[None, :, None, :], -torch.inf)
    total = torch.logsumexp(score, dim=-1)
    lse.copy_(total.transpose(1, 2))
    weights.copy_(torch.exp(score - total.masked_fill(total == -torch.inf, 0.0)[..., None]))


def softmax_backward(local: LocalOperations, operation: Operation) -> None:
    """DS = P (dP - delta) / sqrt(D), in place of dP."""
    (p, delta), (ds,) = local.reads(operation), local.writes(operation)
    scale = 1 / math.sqrt(operation.options["dim"])
    ds.copy_(p * (ds - delta.transpose(1, 2)[..., None]) * scale)


def weigh(local: LocalOperations, operation: Operation) -> None:
    """Total, or what is added to it: a block of columns of the weights times visiting rows."""
    (weights, columns), (total,) = local.reads(operation), local.writes(operation)
    block = weights[..., _visiting(local, operation, columns)]
    part = torch.einsum("bqhk,bkhd->bqhd", block, _per_query_head(columns, weights.shape[2]))
    if operation.options["first"]:
        total.copy_(part)
    else:
        total += part


def weigh_transposed(local: LocalOperations, operation: Operation) -> None:
    """weights^T rows, summed over the query heads of each KV head."""
    (weights, rows), (total,) = local.reads(operation), local.writes(operation)
    part = torch.einsum("bqhk,bqhd->bkhd", weights, rows)
    batch, tokens, _, dim = part.shape
    total.copy_(part.reshape(batch, tokens, total.shape[2], -1, dim).sum(dim=3))


def _visiting(local: LocalOperations, operation: Operation, columns: Tensor) -> slice:
    first = int(operation.options["first_column"][local.store.rank])
    return slice(first, first + columns.shape[1])


def _per_query_head(tensor: Tensor, heads: int) -> Tensor:
    return tensor.repeat_interleave(heads // tensor.shape[2], dim=2)

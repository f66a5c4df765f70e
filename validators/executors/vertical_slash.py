"""MInference's vertical-slash attention on one rank: which columns and diagonals, and attention to them.

Source: Jiang et al. 2024 (arXiv 2407.02490) Algorithm 1; github microsoft/MInference, vertical_and_slash_kernel.
"""

from __future__ import annotations

import typing

import torch
from torch import Tensor

from simulator.program.operations import Operation
from validators.dense import dense_forward
from validators.executors.local import LocalOperations


def vertical_slash_scores(local: LocalOperations, operation: Operation) -> None:
    """Attention weights of the last queries, summed by column and by diagonal: [B, H, S] each."""
    (q, k), (columns, diagonals) = local.reads(operation), local.writes(operation)
    last, tokens = typing.cast(int, operation.options["last"]), q.shape[1]
    keys = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)
    score = torch.einsum("bqhd,bkhd->bhqk", q[:, -last:], keys).to(columns.dtype) / q.shape[-1] ** 0.5
    distance = torch.arange(tokens - last, tokens, device=q.device)[:, None] - torch.arange(tokens, device=q.device)
    weights = torch.softmax(score.masked_fill(distance < 0, -torch.inf), dim=-1)
    columns.copy_(weights.sum(dim=2))
    diagonals.zero_()
    index = distance.clamp(min=0).flatten().expand(*weights.shape[:2], -1)
    diagonals.scatter_add_(2, index, weights.flatten(2))


def vertical_slash_select(local: LocalOperations, operation: Operation) -> None:
    """Indices with the largest sums, in order; the first ``sink`` columns and ``local`` diagonals before all others."""
    sums = local.reads(operation)
    chosen = local.writes(operation)
    for total, target, always in zip(sums, chosen, ("sink", "local"), strict=True):
        preferred = total.clone()
        preferred[:, :, : typing.cast(int, operation.options[always])] = torch.inf
        best = torch.topk(preferred, target.shape[2], dim=-1).indices
        target.copy_(best.sort(dim=-1).values)
    local.selected = torch.cat([each.long() for each in chosen], dim=-1)


def attention_sparse(local: LocalOperations, operation: Operation) -> None:
    """O and LSE over the chosen pairs; dense, masked."""
    (q, k, v, columns, diagonals), (o, lse) = local.reads(operation), local.writes(operation)
    result = dense_forward(q, k, v, chosen_pairs(columns, diagonals, q.shape[1]))
    o.copy_(result[0])
    lse.copy_(result[1])


def chosen_pairs(columns: Tensor, diagonals: Tensor, tokens: int) -> Tensor:
    """Which pairs are attended, [B, H, S, S]: k <= q, and k in a chosen column or q - k a chosen diagonal."""
    batch, heads = columns.shape[:2]
    by_column, by_diagonal = [torch.zeros(batch, heads, tokens, dtype=torch.bool, device=columns.device) for _ in "vs"]
    by_column.scatter_(2, columns.long(), True)
    by_diagonal.scatter_(2, diagonals.long(), True)
    place = torch.arange(tokens, device=columns.device)
    distance = place[:, None] - place
    on_diagonal = by_diagonal[:, :, distance.clamp(min=0).flatten()].view(batch, heads, tokens, tokens)
    return (by_column[:, :, None, :] | on_diagonal) & (distance >= 0)

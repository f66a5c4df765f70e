"""APB's choice of keys on one rank: scores of the retaining head, the best keys, and the key axis [passed | own].

Source: Huang et al. 2025 (arXiv 2502.12085) section 3.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence

import torch

from simulator.program.operations import Operation
from validators.executors.local import LocalOperations


def score(local: LocalOperations, operation: Operation) -> None:
    """Scores [B, K, tokens] of the retaining head, max-pooled over neighbouring tokens."""
    (q, k, v, first, second), (target,) = local.reads(operation), local.writes(operation)
    rows = torch.cat([each.flatten(2) for each in (q, k, v)], dim=-1)
    scores = (torch.nn.functional.silu(rows @ first.T) @ second.T).transpose(1, 2)
    width = typing.cast(int, operation.options["pool"])
    target.copy_(torch.nn.functional.max_pool1d(scores, width, stride=1, padding=width // 2))


def select(local: LocalOperations, operation: Operation) -> None:
    """The keys and values with the highest scores, in their order; the indices [B, K, l_p] are kept."""
    scores, *sources = local.reads(operation)
    targets = local.writes(operation)
    skip, count = typing.cast(int, operation.options["skip"]), targets[0].shape[1]
    best = torch.topk(scores[:, :, skip:], count, dim=-1).indices.sort(dim=-1).values + skip
    local.selected = best
    for source, target in zip(sources, targets, strict=True):
        index = best.transpose(1, 2).unsqueeze(-1).expand(-1, -1, -1, source.shape[-1])
        torch.gather(source, 1, index, out=target)


def concat(local: LocalOperations, operation: Operation) -> None:
    """[The first ``before`` rows passed | own rows]."""
    (passed, own), (target,) = local.reads(operation), local.writes(operation)
    before = int(typing.cast(Sequence[int], operation.options["before"])[local.store.rank])
    view = passed.view(-1, own.shape[0], *passed.shape[1:]).transpose(0, 1).flatten(1, 2)
    target[:, :before] = view[:, :before]
    target[:, before:] = own

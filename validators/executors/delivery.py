"""What communication does, where all ranks' tensors are in one process: received tensors are filled from those sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from simulator.program.operations import Collective, Exchange, IntArray, Operation, Transfer

Collect = Callable[[Sequence[Tensor], Sequence[Tensor], int | None], None]


def deliver(operation: Operation, sent: Sequence[Tensor], received: Sequence[Tensor]) -> None:
    """One tensor of every rank, through one operation."""
    work = operation.work
    if isinstance(work, Exchange):
        for rank, source in enumerate(work.ring.source.tolist()):
            if (source != rank or work.ring.size == 1) and received[rank].numel():
                received[rank].copy_(sent[source])
    elif isinstance(work, Transfer):
        for rank in np.flatnonzero(work.to != np.arange(len(work.to))).tolist():
            received[int(work.to[rank])].copy_(sent[rank])
    elif isinstance(work, Collective) and work.splits is not None:
        _all_to_all_v(work.splits, sent, received)
    else:
        axis = cast("int | None", operation.options.get("axis"))
        for members in _members(operation, len(sent)):
            COLLECT[operation.kind]([sent[rank] for rank in members], [received[rank] for rank in members], axis)


def _all_to_all_v(splits: IntArray, sent: Sequence[Tensor], received: Sequence[Tensor]) -> None:
    pieces = [torch.split(each, rows, dim=1) for each, rows in zip(sent, splits.tolist(), strict=True)]
    for rank, target in enumerate(received):
        target.copy_(torch.cat([from_rank[rank] for from_rank in pieces], dim=1))


def _members(operation: Operation, n_ranks: int) -> list[list[int]]:
    """Ranks of each group that takes part, in ascending order."""
    groups = cast(Collective, operation.work).groups
    groups = np.zeros(n_ranks, dtype=np.int64) if groups is None else groups
    ranks = np.ones(n_ranks, dtype=bool) if operation.ranks is None else operation.ranks
    return [np.flatnonzero((groups == group) & ranks).tolist() for group in np.unique(groups[ranks])]


def _all_gather(sent: Sequence[Tensor], received: Sequence[Tensor], axis: int | None) -> None:
    """Flat, without the padding of the last part; or along an axis."""
    for each in received:
        if axis is None:
            each.view(-1).copy_(torch.cat([part.reshape(-1) for part in sent])[: each.numel()])
        else:
            each.copy_(torch.cat(list(sent), dim=axis))


def _all_reduce(sent: Sequence[Tensor], received: Sequence[Tensor], axis: int | None) -> None:
    total = torch.stack(list(sent)).sum(dim=0)
    for each in received:
        each.copy_(total)


def _reduce_scatter(sent: Sequence[Tensor], received: Sequence[Tensor], axis: int | None) -> None:
    """Flat, padded to equal parts; or along an axis."""
    total = torch.stack(list(sent)).sum(dim=0)
    if axis is None:
        size = sum(each.numel() for each in received)
        total, axis = torch.nn.functional.pad(total.reshape(-1), (0, size - total.numel())), 0
    for each, part in zip(received, total.chunk(len(received), dim=axis), strict=True):
        each.copy_(part.reshape(each.shape))


def _all_to_all(sent: Sequence[Tensor], received: Sequence[Tensor], axis: int | None) -> None:
    for place, each in enumerate(received):
        each.view(-1).copy_(torch.cat([part.reshape(len(sent), -1)[place] for part in sent]))


COLLECT: dict[str, Collect] = {
    "all_gather": _all_gather,
    "all_reduce": _all_reduce,
    "reduce_scatter": _reduce_scatter,
    "all_to_all": _all_to_all,
}

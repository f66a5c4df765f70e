"""The communication of one rank, on tensors: grouped sends and receives, and collectives, by `torch.distributed`.

A hop is one `batch_isend_irecv` of all its tensors, sends and receives alike, so that NCCL makes one group of them and
two ranks that are each other's neighbours cannot wait for one another (NVIDIA/nccl#479). What each operation means is
defined by `delivery`, which does the same where all ranks are in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor

from simulator.program.operations import Buffer, Collective, Exchange, Operation, Transfer
from simulator.program.rings import Ring
from validators.executors.shards import local_tokens
from validators.executors.world import World, group_members

Tensors = Sequence[Tensor]
Group = dist.ProcessGroup
GATHER = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
SCATTER = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)
"""Their names since PyTorch 2.13, and before."""

Collect = Callable[[Tensor, Tensor, Group, "int | None"], None]


class Communication:
    """Does communication operations among the ranks of a world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def prepare(self, operation: Operation) -> Group | None:
        """The communicator of an operation, made where it is the first on its lane to need it; None: no part in it."""
        return self._world.group(operation.lane, _members(operation, self._world.size))

    def perform(self, operation: Operation, group: Group, reads: Tensors, writes: Tensors) -> None:
        """Do one operation; returns when it is done (gloo) or issued to the current stream (NCCL)."""
        targets = [each if each.is_contiguous() else torch.empty_like(each).contiguous() for each in writes]
        work = operation.work
        if isinstance(work, Exchange):
            to, source = int(work.ring.to[self._world.rank]), int(work.ring.source[self._world.rank])
            self._exchange(to, source, operation.writes, group, reads, targets)
        elif isinstance(work, Transfer):
            to = int(work.to[self._world.rank])
            self._transfer(to, group, reads, targets)
        elif isinstance(work, Collective) and work.splits is not None:
            rank, members = self._world.rank, dist.get_process_group_ranks(group)
            received, sent = work.splits[members, rank].tolist(), work.splits[rank, members].tolist()
            for source, target in zip(reads, targets, strict=True):
                _all_to_all_v(target, source, group, received, sent)
        else:
            axis = cast("int | None", operation.options.get("axis"))
            for source, target in zip(reads, targets, strict=True):
                COLLECT[operation.kind](target, source, group, axis)
        for target, write in zip(targets, writes, strict=True):
            if target is not write:
                write.copy_(target)

    def _exchange(
        self, to: int, source: int, arriving: Sequence[Buffer], group: Group, reads: Tensors, writes: Tensors
    ) -> None:
        """Each tensor goes where the receiving buffer has rows."""
        rank = self._world.rank
        hops: list[dist.P2POp] = []
        for tensor, buffer in zip(reads, arriving, strict=True):
            if to != rank and local_tokens(buffer, to):
                hops.append(dist.P2POp(dist.isend, tensor, to, group))
        hops += [
            dist.P2POp(dist.irecv, tensor, source, group) for tensor in writes if source != rank and tensor.numel()
        ]
        _wait(hops)

    def _transfer(self, to: int, group: Group, reads: Tensors, writes: Tensors) -> None:
        """One of the two sends to the other what has any rows."""
        reads, writes = [[each for each in tensors if each.numel()] for tensors in (reads, writes)]
        if to != self._world.rank:
            _wait([dist.P2POp(dist.isend, tensor, to, group) for tensor in reads])
            return
        other = next(rank for rank in dist.get_process_group_ranks(group) if rank != to)
        _wait([dist.P2POp(dist.irecv, tensor, other, group) for tensor in writes])


def _wait(hops: list[dist.P2POp]) -> None:
    """On a GPU the current stream waits, on a CPU the thread."""
    for handle in dist.batch_isend_irecv(hops) if hops else ():
        handle.wait()


def _all_to_all(target: Tensor, source: Tensor, group: Group, axis: int | None) -> None:
    dist.all_to_all_single(target.view(-1), source.view(-1), group=group)


def _all_to_all_v(target: Tensor, source: Tensor, group: Group, received: list[int], sent: list[int]) -> None:
    """Rows of [B, rows, heads, D], made outermost where there are several sequences."""
    if source.shape[0] == 1 and source.is_contiguous():
        dist.all_to_all_single(target[0], source[0], received, sent, group=group)
        return
    rows = source.transpose(0, 1).contiguous()
    arriving = torch.empty_like(target.transpose(0, 1), memory_format=torch.contiguous_format)
    dist.all_to_all_single(arriving, rows, received, sent, group=group)
    target.copy_(arriving.transpose(0, 1))


def _all_gather(target: Tensor, source: Tensor, group: Group, axis: int | None) -> None:
    """Flat, without the padding of the last part; or along an axis."""
    size = dist.get_world_size(group)
    if axis is None and target.numel() == size * source.numel():
        GATHER(target.view(-1), source.view(-1), group=group)
        return
    gathered = source.new_empty(size, *source.shape)
    GATHER(gathered.view(-1), source.view(-1), group=group)
    if axis is None:
        target.view(-1).copy_(gathered.view(-1)[: target.numel()])
    else:
        target.copy_(torch.cat(list(gathered), dim=axis))


def _all_reduce(target: Tensor, source: Tensor, group: Group, axis: int | None) -> None:
    if target.data_ptr() != source.data_ptr():
        target.copy_(source)
    dist.all_reduce(target, group=group)


def _reduce_scatter(target: Tensor, source: Tensor, group: Group, axis: int | None) -> None:
    """Flat, padded to equal parts; or along an axis."""
    size = dist.get_world_size(group)
    if axis is None:
        flat = source.view(-1)
        missing = size * target.numel() - flat.numel()
        parts = torch.nn.functional.pad(flat, (0, missing)) if missing else flat
    else:
        parts = torch.stack([part.contiguous() for part in source.chunk(size, dim=axis)]).view(-1)
    SCATTER(target.view(-1), parts, group=group)


COLLECT: dict[str, Collect] = {
    "all_gather": _all_gather,
    "all_reduce": _all_reduce,
    "reduce_scatter": _reduce_scatter,
    "all_to_all": _all_to_all,
}


def _members(operation: Operation, n_ranks: int) -> tuple[tuple[int, ...], ...]:
    """Ranks of each communicator of the operation."""
    work = operation.work
    if isinstance(work, Exchange):
        return group_members(work.ring.groups.tolist() if isinstance(work.ring, Ring) else [0] * n_ranks)
    groups = cast(Collective, work).groups
    numbers = [0] * n_ranks if groups is None else groups.tolist()
    if operation.ranks is not None and groups is not None:
        numbers = [group if taking else -1 for group, taking in zip(numbers, operation.ranks.tolist(), strict=True)]
    return group_members(numbers)

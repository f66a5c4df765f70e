"""The communication of one rank, on tensors: grouped sends and receives, and collectives, by `torch.distributed`.

A hop is one `batch_isend_irecv` of all its tensors, sends and receives alike, so that NCCL makes one group of them and
two ranks that are each other's neighbours cannot wait for one another (NVIDIA/nccl#479).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch.distributed as dist
from torch import Tensor

from simulator.program.operations import Collective, Exchange, IntArray, Operation
from simulator.program.rings import Ring
from validators.executors.shards import local_tokens
from validators.executors.world import World, group_members

Tensors = Sequence[Tensor]


class Communication:
    """Does communication operations among the ranks of a world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def prepare(self, operation: Operation) -> dist.ProcessGroup:
        """The communicator of an operation, made where it is the first on its lane to need it."""
        return self._world.group(operation.lane, _members(operation, self._world.size))

    def perform(self, operation: Operation, group: dist.ProcessGroup, reads: Tensors, writes: Tensors) -> None:
        """Do one operation; returns when it is done (gloo) or issued to the current stream (NCCL)."""
        if operation.kind == "exchange":
            self._exchange(operation, group, reads, writes)
            return
        work = cast(Collective, operation.work)
        for source, target in zip(reads, writes, strict=True):
            if work.splits is not None:
                self._all_to_all_v(work.splits, group, source, target)
                continue
            COLLECTIVES[operation.kind](target.view(-1), source.view(-1), group)

    def _exchange(self, operation: Operation, group: dist.ProcessGroup, reads: Tensors, writes: Tensors) -> None:
        rank, work = self._world.rank, cast(Exchange, operation.work)
        to, source = int(work.ring.to[rank]), int(work.ring.source[rank])
        hops = [
            dist.P2POp(dist.isend, tensor, to, group)
            for tensor, buffer in zip(reads, operation.writes, strict=True)
            if to != rank and local_tokens(buffer, to)
        ]
        hops += [
            dist.P2POp(dist.irecv, tensor, source, group) for tensor in writes if source != rank and tensor.numel()
        ]
        for handle in dist.batch_isend_irecv(hops) if hops else ():
            handle.wait()

    def _all_to_all_v(self, splits: IntArray, group: dist.ProcessGroup, source: Tensor, target: Tensor) -> None:
        """Rows are outermost on the wire: [tokens, B, heads, D]."""
        rank = self._world.rank
        rows = source.transpose(0, 1).contiguous()
        received = rows.new_empty(target.transpose(0, 1).shape)
        sizes = splits[:, rank].tolist(), splits[rank].tolist()
        _wait(dist.all_to_all_single(received, rows, *sizes, group=group, async_op=True))
        target.copy_(received.transpose(0, 1))


def _reduce_scatter(target: Tensor, source: Tensor, group: dist.ProcessGroup) -> None:
    _wait(dist.reduce_scatter_tensor(target, source, group=group, async_op=True))


def _all_reduce(target: Tensor, source: Tensor, group: dist.ProcessGroup) -> None:
    if target is not source:
        target.copy_(source)
    _wait(dist.all_reduce(target, group=group, async_op=True))


def _all_to_all(target: Tensor, source: Tensor, group: dist.ProcessGroup) -> None:
    _wait(dist.all_to_all_single(target, source, group=group, async_op=True))


def _all_gather(target: Tensor, source: Tensor, group: dist.ProcessGroup) -> None:
    _wait(dist.all_gather_into_tensor(target, source, group=group, async_op=True))


def _wait(handle: dist.Work | None) -> None:
    """On a GPU the current stream waits, on a CPU the thread."""
    assert handle is not None
    handle.wait()


COLLECTIVES = {
    "all_to_all": _all_to_all, "all_gather": _all_gather, "reduce_scatter": _reduce_scatter, "all_reduce": _all_reduce,
}  # fmt: skip


def _members(operation: Operation, n_ranks: int) -> tuple[tuple[int, ...], ...]:
    """Ranks of each communicator of the operation's lane."""
    work = operation.work
    if isinstance(work, Exchange):
        return _ring_members(work) if isinstance(work.ring, Ring) else group_members([0] * n_ranks)
    groups = cast(Collective, work).groups
    return group_members([0] * n_ranks if groups is None else groups.tolist())


def _ring_members(work: Exchange) -> tuple[tuple[int, ...], ...]:
    """Ranks that are connected by sends."""
    group = list(range(len(work.ring.to)))
    for rank, to in enumerate(work.ring.to.tolist()):
        old, new = max(group[rank], group[to]), min(group[rank], group[to])
        group = [new if each == old else each for each in group]
    return group_members(group)

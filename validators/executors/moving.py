"""Memory-bound operations of one rank: sums, casts, and reordering before and after an all-to-all.

A packed tensor is [P, B, tokens, heads, D], the slices for the ranks outermost, so that each is one run of memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from simulator.program.operations import Operation
from validators.executors.local import LocalOperations, gaps
from validators.executors.store import token_dim
from validators.kernels.fused import add_into, copy_into, gather_rows


def accumulate(local: LocalOperations, operation: Operation) -> None:
    """Totals += parts, on the rows or columns covered, or token by token."""
    if "by_token" in operation.options:
        _add_by_token(local, operation)
        return
    covered = local.covered(operation)
    for total, source in zip(local.writes(operation), operation.reads, strict=True):
        slices = [(0, total.shape[1])] if covered is None else covered
        for part in local.store.pieces(source, slices):
            add_into(total[:, part.start : part.stop], part.tensor)


def _add_by_token(local: LocalOperations, operation: Operation) -> None:
    tensors = zip(local.writes(operation), local.reads(operation), operation.writes, operation.reads, strict=True)
    for number, (total, part, into, of) in enumerate(tensors):
        assert into.layout is not None and of.layout is not None
        rows = local.rows(operation, number, into.layout, of.layout)
        if "fresh" in operation.options:
            total.zero_()
        total.index_add_(1, rows.at, part.to(total.dtype))


def host_copy(local: LocalOperations, operation: Operation) -> None:
    """Between the memories of device and host."""
    copy_all(list(zip(local.reads(operation), local.writes(operation), strict=True)))


def copy_all(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """(source, target) each; a GPU goes on meanwhile, as the memory of the host is pinned."""
    for source, target in pairs:
        target.copy_(source, non_blocking=True)


def cast(local: LocalOperations, operation: Operation) -> None:
    """The same values in another dtype; zero outside what ``covered`` covers."""
    (target,), dim = local.writes(operation), token_dim(operation.writes[0])
    covered = local.covered(operation)
    slices = [(0, target.shape[dim])] if covered is None else covered
    for part in local.store.pieces(operation.reads[0], slices):
        copy_into(target.narrow(dim, part.start, part.stop - part.start), part.tensor)
    for start, stop in gaps(slices, target.shape[dim]):
        target.narrow(dim, start, stop - start).zero_()


def reorder(local: LocalOperations, operation: Operation) -> None:
    """The rows of the same tokens; zero where the source lacks one."""
    (source,), (target,) = local.reads(operation), local.writes(operation)
    batch = math.gcd(source.shape[0], target.shape[0])
    rows = local.rows(operation, 0, operation.options["have"], operation.options["want"])
    held, wanted = (each.view(each.shape[0] // batch, batch, *each.shape[1:]) for each in (source, target))
    gather_rows(wanted, held, rows.found)


def place(local: LocalOperations, operation: Operation) -> None:
    """At its heads, zero elsewhere."""
    (source,), (target,) = local.reads(operation), local.writes(operation)
    first = int(operation.options["first_head"][local.store.rank])
    target.zero_()
    copy_into(target[:, :, first : first + source.shape[2]], source)


def pack(local: LocalOperations, operation: Operation) -> None:
    """To [P, B, tokens, heads, D]: a slice per rank of heads (repeated where there are fewer) or of tokens."""
    (source,), (target,) = local.reads(operation), local.writes(operation)
    batch, tokens, heads, dim = source.shape
    slices = target.shape[0] // batch
    if operation.options["axis"] == "tokens":
        parts = source.view(batch, slices, -1, heads, dim).transpose(0, 1)
        copy_into(target.view(slices, batch, *target.shape[1:]), parts)
        return
    repeats = slices * target.shape[2] // heads
    if repeats > 1:
        spread = target.view(heads, repeats, batch, tokens, dim)
        copy_into(spread, source.permute(2, 0, 1, 3).unsqueeze(1).expand_as(spread))
    else:
        view = target.view(slices, batch, *target.shape[1:])
        copy_into(view, source.view(batch, tokens, slices, -1, dim).permute(2, 0, 1, 3, 4))


def unpack(local: LocalOperations, operation: Operation) -> None:
    """From [P, B, tokens, heads, D] to tokens or heads of all ranks in a row."""
    (source,), (target,) = local.reads(operation), local.writes(operation)
    batch, tokens, heads, dim = target.shape
    view = source.view(-1, batch, *source.shape[1:])
    if operation.options["axis"] == "tokens":
        copy_into(target.view(batch, view.shape[0], -1, heads, dim), view.transpose(0, 1))
    else:
        copy_into(target.view(batch, tokens, view.shape[0], -1, dim), view.permute(1, 2, 0, 3, 4))


def reduce_replicas(local: LocalOperations, operation: Operation) -> None:
    """Gradients of replicated heads, summed in at least fp32."""
    (source,), (target,) = local.reads(operation), local.writes(operation)
    batch, tokens, heads, dim = target.shape
    view = source.view(heads, -1, batch, tokens, dim)
    wide = torch.promote_types(source.dtype, torch.float32)
    target.copy_(view.sum(dim=1, dtype=wide).permute(1, 2, 0, 3))

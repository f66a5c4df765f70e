"""Experts and latent attention of one rank (`simulator.layers.kinds`): the routing is enforced, not computed.

A rank's rows lie sorted by expert, ``counts`` of each; row j is token j mod n (`simulator.layers.routing`). With option
``sent`` it dispatches those of some experts, and knows all.
"""

from __future__ import annotations

import typing

import numpy as np
import torch
from torch import Tensor

from simulator.program.operations import Operation
from validators.executors.layering import store_grad
from validators.executors.local import LocalOperations, Perform


def slots(operation: Operation, rank: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Token and expert of every row."""
    o = operation.options
    counts = typing.cast(np.ndarray, o["counts"])[int(typing.cast(np.ndarray, o["place"])[rank])]
    expert = torch.repeat_interleave(torch.arange(len(counts)), torch.from_numpy(counts))
    return torch.arange(len(expert)) % tokens, expert


def sent_slots(operation: Operation, rank: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Token and expert of every row that a rank dispatches."""
    token, expert = slots(operation, rank, tokens)
    if "sent" not in operation.options:
        return token, expert
    place = int(typing.cast(np.ndarray, operation.options["place"])[rank])
    own = torch.from_numpy(typing.cast(np.ndarray, operation.options["sent"])[place])[expert]
    return token[own], expert[own]


def gate_matrix(logits: Tensor, token: Tensor, expert: Tensor) -> Tensor:
    """[tokens, experts]: softmax over the experts that a token visits, 0 elsewhere."""
    chosen = torch.full_like(logits, -torch.inf)
    chosen[token, expert] = logits[token, expert]
    return torch.nan_to_num(chosen.softmax(dim=-1), nan=0.0)


def gates(local: LocalOperations, operation: Operation) -> None:
    """Gate of every row."""
    (logits,), (target,) = local.reads(operation), local.writes(operation)
    flat = logits.flatten(0, 2)
    matrix = gate_matrix(flat, *slots(operation, local.store.rank, len(flat)))
    target.copy_(matrix[sent_slots(operation, local.store.rank, len(flat))].view_as(target))


def gates_backward(local: LocalOperations, operation: Operation) -> None:
    """Gradient of the router's logits."""
    (dgates, logits), (target,) = local.reads(operation), local.writes(operation)
    flat = logits.flatten(0, 2)
    token, expert = slots(operation, local.store.rank, len(flat))
    p, dp = gate_matrix(flat, token, expert), torch.zeros_like(flat)
    dp[token, expert] = dgates.view(-1)
    target.copy_((p * (dp - (p * dp).sum(dim=-1, keepdim=True))).view_as(target))


def dispatch(local: LocalOperations, operation: Operation) -> None:
    """Rows of the tokens."""
    (x,), (rows,) = local.reads(operation), local.writes(operation)
    flat = x.flatten(2).flatten(0, 1)
    rows.copy_(flat[sent_slots(operation, local.store.rank, len(flat))[0]].view_as(rows))


def dispatch_backward(local: LocalOperations, operation: Operation) -> None:
    """Gradients of rows, added by token."""
    (drows,), (dx,) = local.reads(operation), local.writes(operation)
    total = torch.zeros_like(dx.flatten(2).flatten(0, 1))
    token, _ = slots(operation, local.store.rank, len(total))
    dx.copy_(total.index_add(0, token, drows.flatten(0, 2)).view_as(dx))


def combine_rows(local: LocalOperations, operation: Operation) -> None:
    """Sum over a token's rows."""
    (rows, gate), (y,) = local.reads(operation), local.writes(operation)
    total = torch.zeros_like(y.flatten(2).flatten(0, 1))
    token, _ = sent_slots(operation, local.store.rank, len(total))
    y.copy_(total.index_add(0, token, rows.flatten(0, 2) * gate.view(-1, 1)).view_as(y))


def combine_rows_backward(local: LocalOperations, operation: Operation) -> None:
    """Gradients of rows and gates."""
    (dy, rows, gate), (drows, dgate) = local.reads(operation), local.writes(operation)
    flat = dy.flatten(2).flatten(0, 1)
    of_row = flat[slots(operation, local.store.rank, len(flat))[0]]
    drows.copy_((of_row * gate.view(-1, 1)).view_as(drows))
    dgate.copy_((of_row * rows.flatten(0, 2)).sum(dim=-1).view_as(dgate))


def regroup(local: LocalOperations, operation: Operation) -> None:
    """From (source, expert) order to (expert, source), or back."""
    (source,), (target,) = local.reads(operation), local.writes(operation)
    received = torch.from_numpy(typing.cast(np.ndarray, operation.options["received"])[local.store.rank])
    expert = torch.arange(received.shape[1]).repeat(received.shape[0])
    order = torch.argsort(torch.repeat_interleave(expert, received.flatten()), stable=True)
    if operation.options["by_expert"]:
        target.copy_(source[:, order])
    else:
        target[:, order] = source


def experts(local: LocalOperations, operation: Operation) -> None:
    """Product of each expert's rows."""
    (x, w), (y,) = local.reads(operation), local.writes(operation)
    for number, rows in enumerate(_of_experts(local, operation)):
        y[0, rows, 0] = x[0, rows].flatten(1) @ w[number, :, 0].T


def experts_dx(local: LocalOperations, operation: Operation) -> None:
    """Gradient of the rows."""
    (dy, w), (dx,) = local.reads(operation), local.writes(operation)
    for number, rows in enumerate(_of_experts(local, operation)):
        dx[0, rows, 0] = dy[0, rows, 0] @ w[number, :, 0]


def experts_dw(local: LocalOperations, operation: Operation) -> None:
    """Gradient of each expert's matrix."""
    dy, x = local.reads(operation)[:2]
    found = [dy[0, rows, 0].T @ x[0, rows].flatten(1) for rows in _of_experts(local, operation)]
    store_grad(operation, local.writes(operation)[0], torch.stack(found))


def _of_experts(local: LocalOperations, operation: Operation) -> list[slice]:
    counts = typing.cast(np.ndarray, operation.options["counts"])[local.store.rank]
    ends = np.cumsum(counts).tolist()
    return [slice(end - count, end) for end, count in zip(ends, counts.tolist(), strict=True)]


def split(local: LocalOperations, operation: Operation) -> None:
    """Features cut in two."""
    first, second = local.writes(operation)
    whole = local.reads(operation)[0]
    first.copy_(whole[..., : first.shape[-1]])
    second.copy_(whole[..., first.shape[-1] :])


def join(local: LocalOperations, operation: Operation) -> None:
    """Features put together."""
    local.writes(operation)[0].copy_(torch.cat(local.reads(operation), dim=-1))


def latent_keys(local: LocalOperations, operation: Operation) -> None:
    """Keys with the part that heads share, and values."""
    (expanded, shared), (k, v) = local.reads(operation), local.writes(operation)
    own = k.shape[-1] - shared.shape[-1]
    k.copy_(torch.cat([expanded[..., :own], shared.expand(-1, -1, k.shape[2], -1)], dim=-1))
    v.copy_(expanded[..., own:])


def latent_keys_backward(local: LocalOperations, operation: Operation) -> None:
    """Gradients of both; heads are added."""
    (dk, dv), (dexpanded, dshared) = local.reads(operation), local.writes(operation)
    own = dk.shape[-1] - dshared.shape[-1]
    dexpanded.copy_(torch.cat([dk[..., :own], dv], dim=-1))
    dshared.copy_(dk[..., own:].sum(dim=2, keepdim=True))


KINDS: dict[str, Perform] = {
    each.__name__: each
    for each in (
        gates,
        gates_backward,
        dispatch,
        dispatch_backward,
        combine_rows,
        combine_rows_backward,
        regroup,
        experts,
        experts_dx,
        experts_dw,
        split,
        join,
        latent_keys,
        latent_keys_backward,
    )
}

"""What one rank does in the operations of layers and steps (`simulator.layers.kinds`), on PyTorch tensors.

Activations are [batch, tokens, heads, dim], row statistics and token ids [batch, 1, tokens], matrices [1, out, 1, in].
"""

from __future__ import annotations

import typing
from collections.abc import Sequence

import torch
from torch import Tensor

from simulator.program.operations import Operation
from validators.executors.local import LocalOperations, Perform
from validators.executors.shards import token_index

EPSILON = 1e-5
ROPE_BASE = 10000.0


# -- products ----------------------------------------------------------------------------------------------------


def linear(local: LocalOperations, operation: Operation) -> None:
    """Y = x w^T."""
    reads, writes = local.reads(operation), local.writes(operation)
    x, w = reads
    y = x[:, _rows(operation, x)].flatten(2) @ matrix(w).T
    if operation.options.get("accumulate"):
        writes[0].add_(y.view_as(writes[0]))
    else:
        writes[0].copy_(y.view_as(writes[0]))


def linear_dx(local: LocalOperations, operation: Operation) -> None:
    """Dx = dy w."""
    reads, writes = local.reads(operation), local.writes(operation)
    dy, w = reads
    dx = writes[0][:, _rows(operation, writes[0])]
    dx.copy_((dy.flatten(2) @ matrix(w)).view_as(dx))


def linear_dw(local: LocalOperations, operation: Operation) -> None:
    """Dw = dy^T x."""
    reads, writes = local.reads(operation), local.writes(operation)
    dy, x = reads[:2]
    rows = dy.flatten(2).flatten(0, 1), x[:, _rows(operation, x)].flatten(2).flatten(0, 1)
    store_grad(operation, writes[0], rows[0].T @ rows[1])


def embed(local: LocalOperations, operation: Operation) -> None:
    """Rows of this rank's part of the table."""
    reads, writes = local.reads(operation), local.writes(operation)
    ids, table = reads[0][:, 0].long() - _offset(local, operation), matrix(reads[1])
    mine = (ids >= 0) & (ids < len(table))
    rows = table[ids.clamp(0, len(table) - 1)] * mine.unsqueeze(-1)
    writes[0].copy_(rows.view_as(writes[0]))


def embed_dw(local: LocalOperations, operation: Operation) -> None:
    """Sum of dx over the tokens of each word."""
    reads, writes = local.reads(operation), local.writes(operation)
    ids, dx = reads[0][:, 0].long() - _offset(local, operation), reads[1].flatten(2)
    mine = (ids >= 0) & (ids < writes[0].shape[1])
    total = torch.zeros_like(matrix(writes[0]))
    total.index_add_(0, ids[mine], dx[mine])
    store_grad(operation, writes[0], total)


# -- pointwise ---------------------------------------------------------------------------------------------------


def rms_norm(local: LocalOperations, operation: Operation) -> None:
    """Y = x rstd g."""
    reads, writes = local.reads(operation), local.writes(operation)
    x, gain = reads
    rstd = (x.square().mean(dim=-1, keepdim=True) + EPSILON).rsqrt()
    writes[0].copy_(x * rstd * gain.view(-1))
    writes[1].copy_(_to_rows(rstd))


def rms_norm_dx(local: LocalOperations, operation: Operation) -> None:
    """Dx = rstd (dy g - x rstd^2 mean(dy g x))."""
    reads, writes = local.reads(operation), local.writes(operation)
    dy, x, gain, rows = reads
    rstd, scaled = _from_rows(rows), dy * gain.view(-1)
    writes[0].copy_(rstd * (scaled - x * rstd.square() * (scaled * x).mean(dim=-1, keepdim=True)))


def rms_norm_dw(local: LocalOperations, operation: Operation) -> None:
    """Dg = sum over tokens of dy x rstd."""
    reads, writes = local.reads(operation), local.writes(operation)
    dy, x, rows = reads[:3]
    store_grad(operation, writes[0], (dy * x * _from_rows(rows)).sum(dim=(0, 1, 2)))


def rope(local: LocalOperations, operation: Operation) -> None:
    """Rotate pairs (i, i + dims/2) of the last features by position / base^(2 i / dims)."""
    writes = local.writes(operation)
    dims, buffer = typing.cast(int, operation.options["dims"]), operation.writes[0]
    given = operation.options.get("positions")
    if given is None:
        assert buffer.layout is not None
        positions = token_index(buffer.layout.ranges(local.store.rank))
    else:
        positions = torch.arange(*typing.cast(tuple[int, int], given))
    x = writes[0][..., writes[0].shape[-1] - dims :]
    rate = ROPE_BASE ** (-torch.arange(0, dims, 2, dtype=torch.float64) / dims)
    angle = torch.as_tensor(positions, dtype=torch.float64)[:, None, None] * rate
    angle = (-angle if operation.options["inverse"] else angle).to(x.device)
    cosine, sine = torch.cos(angle).to(x.dtype), torch.sin(angle).to(x.dtype)
    low, high = x.clone().chunk(2, dim=-1)
    x.copy_(torch.cat([low * cosine - high * sine, high * cosine + low * sine], dim=-1))


def swiglu(local: LocalOperations, operation: Operation) -> None:
    """H = silu(gate) up."""
    reads, writes = local.reads(operation), local.writes(operation)
    writes[0].copy_(torch.nn.functional.silu(reads[0]) * reads[1])


def swiglu_backward(local: LocalOperations, operation: Operation) -> None:
    """Gradients of gate and up."""
    reads, writes = local.reads(operation), local.writes(operation)
    dh, gate, up = reads
    sigmoid = torch.sigmoid(gate)
    writes[0].copy_(dh * up * sigmoid * (1 + gate * (1 - sigmoid)))
    writes[1].copy_(dh * gate * sigmoid)


def gelu(local: LocalOperations, operation: Operation) -> None:
    """X Phi(x)."""
    reads, writes = local.reads(operation), local.writes(operation)
    writes[0].copy_(torch.nn.functional.gelu(reads[0]))


def gelu_backward(local: LocalOperations, operation: Operation) -> None:
    """Dx = dy (Phi(x) + x phi(x))."""
    reads, writes = local.reads(operation), local.writes(operation)
    dy, x = reads
    cumulative = 0.5 * (1 + torch.erf(x / 2**0.5))
    density = torch.exp(-x.square() / 2) / (2 * torch.pi) ** 0.5
    writes[0].copy_(dy * (cumulative + x * density))


def add(local: LocalOperations, operation: Operation) -> None:
    """A + b."""
    reads, writes = local.reads(operation), local.writes(operation)
    torch.add(*reads, out=writes[0])


def append(local: LocalOperations, operation: Operation) -> None:
    """New rows at the end of the last rank's cache."""
    (rows, _), (cache,) = local.reads(operation), local.writes(operation)
    if typing.cast(Sequence[int], operation.options["last"])[local.store.rank]:
        cache[:, cache.shape[1] - rows.shape[1] :] = rows


def wait(local: LocalOperations, operation: Operation) -> None:
    """Nothing to do: what is read is there."""


# -- fine-tuning -----------------------------------------------------------------------------------------------


def bias(local: LocalOperations, operation: Operation) -> None:
    """Add a vector to every token, in place."""
    local.writes(operation)[0].add_(local.reads(operation)[1].view(-1))


def bias_dw(local: LocalOperations, operation: Operation) -> None:
    """Sum of dy over tokens."""
    store_grad(operation, local.writes(operation)[0], local.reads(operation)[0].sum(dim=(0, 1, 2)))


def row_lengths(local: LocalOperations, operation: Operation) -> None:
    """Trained length over actual length of each row."""
    base, product, length = local.reads(operation)
    local.writes(operation)[0].copy_((length.view(-1) / (matrix(base) + matrix(product)).norm(dim=1)).view(1, 1, 1, -1))


def scale(local: LocalOperations, operation: Operation) -> None:
    """A factor per feature; features are numbered through all heads."""
    (x, factors), (y,) = local.reads(operation), local.writes(operation)
    y.copy_(x * factors.view(*x.shape[2:]))


def length_dw(local: LocalOperations, operation: Operation) -> None:
    """Dm = sum of dy y s / m."""
    dy, y, factors, length = local.reads(operation)[:4]
    grad = (dy * y).sum(dim=(0, 1)).view(-1) * factors.view(-1) / length.view(-1)
    store_grad(operation, local.writes(operation)[0], grad)


# -- loss --------------------------------------------------------------------------------------------------------


def take_tokens(local: LocalOperations, operation: Operation) -> None:
    """A slice of the tokens."""
    reads, writes = local.reads(operation), local.writes(operation)
    dim = 2 if operation.reads[0].dim == 1 else 1
    start, stop = typing.cast(tuple[int, int], operation.options["rows"])
    count = stop - start
    writes[0].copy_(reads[0].narrow(dim, start % max(reads[0].shape[dim], 1), count))


def join_tokens(local: LocalOperations, operation: Operation) -> None:
    """Tokens of two tensors."""
    dim = 2 if operation.writes[0].dim == 1 else 1
    local.writes(operation)[0].copy_(torch.cat(local.reads(operation), dim=dim))


def drop_tokens(local: LocalOperations, operation: Operation) -> None:
    """Without the leading tokens."""
    (source,), (target,) = local.reads(operation), local.writes(operation)
    target.copy_(source[:, int(typing.cast(Sequence[int], operation.options["dropped"])[local.store.rank]) :])


def cross_entropy(local: LocalOperations, operation: Operation) -> None:
    """Log-sum-exp of this rank's words, and the label's logit or 0."""
    reads, writes = local.reads(operation), local.writes(operation)
    logits, labels = reads[0].flatten(2), reads[1][:, 0].long() - _offset(local, operation)
    writes[0].copy_(torch.logsumexp(logits, dim=-1).unsqueeze(1))
    mine = (labels >= 0) & (labels < logits.shape[-1])
    found = logits.gather(-1, labels.clamp(0, logits.shape[-1] - 1).unsqueeze(-1))[..., 0]
    writes[1].copy_((found * mine).unsqueeze(1))


def cross_entropy_join(local: LocalOperations, operation: Operation) -> None:
    """Over all ranks' words."""
    reads, writes = local.reads(operation), local.writes(operation)
    batch = writes[0].shape[0]
    lse, target = [each.view(-1, batch, *each.shape[1:]) for each in reads]
    writes[0].copy_(torch.logsumexp(lse, dim=0))
    writes[1].copy_(target.sum(dim=0))


def cross_entropy_backward(local: LocalOperations, operation: Operation) -> None:
    """(softmax - onehot) scale, in place of the logits."""
    reads, writes = local.reads(operation), local.writes(operation)
    logits, labels, lse = reads[:3]
    ids = labels[:, 0].long() - _offset(local, operation)
    flat = writes[0].flatten(2)
    grad = torch.exp(logits.flatten(2) - lse.transpose(1, 2))
    mine = (ids >= 0) & (ids < grad.shape[-1])
    grad.scatter_add_(-1, ids.clamp(0, grad.shape[-1] - 1).unsqueeze(-1), -mine.to(grad.dtype).unsqueeze(-1))
    factor = typing.cast(float, operation.options["scale"]) if len(reads) == 3 else reads[3]
    flat.copy_(grad * factor)


def sequence_sum(local: LocalOperations, operation: Operation) -> None:
    """Log-probability of each sequence's tokens on this rank."""
    lse, target = local.reads(operation)
    local.writes(operation)[0].copy_((target - lse).sum(dim=2, keepdim=True))


def preference(local: LocalOperations, operation: Operation) -> None:
    """Minus the derivative of the loss by the log-probability of each sequence."""
    reads, (factor,) = local.reads(operation), local.writes(operation)
    o = operation.options
    settings, pairs = typing.cast(dict[str, float], o["settings"]), typing.cast(int, o["pairs"])
    chosen, rejected = reads[0][0::2], reads[0][1::2]
    if o["method"] == "dpo":
        margin = chosen - rejected - (reads[1][0::2] - reads[1][1::2])
        push = settings["beta"] * torch.sigmoid(-settings["beta"] * margin)
        factor[0::2], factor[1::2] = push, -push
    else:
        tokens = typing.cast(int, o["tokens"])
        means = chosen / tokens, rejected / tokens
        odds = [mean - torch.log1p(-torch.exp(mean)) for mean in means]
        push = settings["weight"] * torch.sigmoid(odds[1] - odds[0])
        factor[0::2] = (1 + push / (1 - torch.exp(means[0]))) / tokens
        factor[1::2] = -push / (1 - torch.exp(means[1])) / tokens
    factor /= pairs


# -- optimizer ---------------------------------------------------------------------------------------------------


def adamw(local: LocalOperations, operation: Operation) -> None:
    """Moments, master weights, weights (Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2)."""
    reads, writes = local.reads(operation), local.writes(operation)
    grad, (m, v, master, weight) = reads[0].reshape(writes[0].shape), writes
    o = typing.cast(dict[str, float], operation.options["settings"])
    m.mul_(o["beta1"]).add_(grad, alpha=1 - o["beta1"])
    v.mul_(o["beta2"]).addcmul_(grad, grad, value=1 - o["beta2"])
    first, second = m / (1 - o["beta1"] ** o["step"]), v / (1 - o["beta2"] ** o["step"])
    master.mul_(1 - o["learning_rate"] * o["weight_decay"])
    master.sub_(first / (second.sqrt() + o["epsilon"]), alpha=o["learning_rate"])
    weight.copy_(master.view_as(weight))


def matrix(weight: Tensor) -> Tensor:
    """[1, out, 1, in] as [out, in]."""
    return weight.reshape(-1, weight.shape[-1])


def _rows(operation: Operation, tensor: Tensor) -> slice:
    rows = typing.cast(tuple[int, int], operation.options.get("rows", (0, tensor.shape[1])))
    return slice(*rows)


def _offset(local: LocalOperations, operation: Operation) -> int:
    offset = operation.options.get("offset", 0)
    return offset if isinstance(offset, int) else int(typing.cast(Sequence[int], offset)[local.store.rank])


def store_grad(operation: Operation, target: Tensor, grad: Tensor) -> None:
    """A weight's gradient, or what is added to it."""
    if operation.options.get("accumulate"):
        target.add_(grad.view_as(target))
    else:
        target.copy_(grad.view_as(target))


def _to_rows(column: Tensor) -> Tensor:
    """[B, T, H, 1] as [B, H, T]."""
    return column[..., 0].transpose(1, 2)


def _from_rows(rows: Tensor) -> Tensor:
    return rows.transpose(1, 2).unsqueeze(-1)


KINDS: dict[str, Perform] = {
    each.__name__: each
    for each in (
        linear,
        linear_dx,
        linear_dw,
        embed,
        embed_dw,
        rms_norm,
        rms_norm_dx,
        rms_norm_dw,
        rope,
        swiglu,
        swiglu_backward,
        gelu,
        gelu_backward,
        add,
        append,
        wait,
        bias,
        bias_dw,
        row_lengths,
        scale,
        length_dw,
        take_tokens,
        join_tokens,
        drop_tokens,
        cross_entropy,
        cross_entropy_join,
        cross_entropy_backward,
        sequence_sum,
        preference,
        adamw,
    )
}

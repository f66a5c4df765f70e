"""What one rank does in the operations of layers and steps (`simulator.layers.kinds`), on PyTorch tensors.

Activations are [batch, tokens, heads, dim], row statistics and token ids [batch, 1, tokens], matrices [1, out, 1, in].
"""

from __future__ import annotations

import typing
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from simulator.program.operations import Operation
from validators.executors.local import LocalOperations, Perform
from validators.executors.shards import token_index
from validators.executors.store import Piece
from validators.kernels import pointwise

EPSILON = 1e-5
ROPE_BASE = 10000.0


# -- products ----------------------------------------------------------------------------------------------------


def linear(local: LocalOperations, operation: Operation) -> None:
    """Y = x w^T."""
    (x, w), (y,) = local.reads(operation), local.writes(operation)
    rows, into = flat(_rows(operation, x)), flat(y)
    if operation.options.get("accumulate"):
        torch.addmm(into, rows, matrix(w).T, out=into)
    else:
        torch.mm(rows, matrix(w).T, out=into)


def linear_dx(local: LocalOperations, operation: Operation) -> None:
    """Dx = dy w."""
    (dy, w), (whole,) = local.reads(operation), local.writes(operation)
    dx = _rows(operation, whole)
    if dx.is_contiguous():
        torch.mm(flat(dy), matrix(w), out=flat(dx))
    else:
        dx.copy_((flat(dy) @ matrix(w)).view_as(dx))


def linear_dw(local: LocalOperations, operation: Operation) -> None:
    """Dw = dy^T x."""
    (dy, x), (dw,) = local.reads(operation)[:2], local.writes(operation)
    rows, into = flat(_rows(operation, x)), matrix(dw)
    if operation.options.get("accumulate"):
        torch.addmm(into, flat(dy).T, rows, out=into)
    else:
        torch.mm(flat(dy).T, rows, out=into)


def embed(local: LocalOperations, operation: Operation) -> None:
    """Rows of this rank's part of the table."""
    reads, (x,) = local.reads(operation), local.writes(operation)
    ids, table = reads[0].flatten().long(), matrix(reads[1])
    if not np.any(operation.options["offset"]) and not operation.reads[1].slices:
        torch.index_select(table, 0, ids, out=flat(x))
        return
    ids = ids - _offset(local, operation)
    mine = (ids >= 0) & (ids < len(table))
    rows = table[ids.clamp(0, len(table) - 1)] * mine.unsqueeze(-1)
    x.copy_(rows.view_as(x))


def embed_dw(local: LocalOperations, operation: Operation) -> None:
    """Sum of dx over the tokens of each word."""
    reads, buffer = local.reads(operation), operation.writes[0]
    ids, dx = reads[0].flatten().long() - _offset(local, operation), flat(reads[1])
    words = buffer.tokens
    if not isinstance(words, int) or buffer.slices or operation.options.get("accumulate"):
        (table,) = local.writes(operation)
        _add_words(operation, table, ids, dx)
        return
    total = torch.ops.aten.embedding_dense_backward(dx, ids, words, -1, False)
    local.store.adopt(buffer, [Piece(0, words, total.view(1, words, 1, buffer.dim))])


def _add_words(operation: Operation, table: Tensor, ids: Tensor, dx: Tensor) -> None:
    mine = (ids >= 0) & (ids < table.shape[1])
    total = torch.zeros_like(matrix(table))
    total.index_add_(0, ids[mine], dx[mine])
    store_grad(operation, table, total)


# -- pointwise ---------------------------------------------------------------------------------------------------


def rms_norm(local: LocalOperations, operation: Operation) -> None:
    """Y = x rstd g."""
    pointwise.rms_norm(*local.reads(operation), *local.writes(operation), EPSILON)


def rms_norm_dx(local: LocalOperations, operation: Operation) -> None:
    """Dx = rstd (dy g - x rstd^2 mean(dy g x))."""
    dy, x, gain, rstd = local.reads(operation)
    pointwise.rms_norm_dx(dy.contiguous(), x, gain, rstd, *local.writes(operation))


def rms_norm_dw(local: LocalOperations, operation: Operation) -> None:
    """Dg = sum over tokens of dy x rstd."""
    dy, x, rstd = local.reads(operation)[:3]
    store_grad(operation, local.writes(operation)[0], pointwise.rms_norm_dw(dy.contiguous(), x, rstd))


def rope(local: LocalOperations, operation: Operation) -> None:
    """Rotate pairs (i, i + dims/2) of the last features by position / base^(2 i / dims)."""
    (x,) = local.writes(operation)
    dims = typing.cast(int, operation.options["dims"])
    layout, given = operation.writes[0].layout, operation.options.get("positions")

    def positions() -> Tensor:
        if given is not None:
            return torch.arange(*typing.cast(tuple[int, int], given), device=x.device)
        assert layout is not None
        return token_index(layout.ranges(local.store.rank)).to(x.device)

    def rates() -> Tensor:
        return (ROPE_BASE ** (-torch.arange(0, dims, 2, dtype=torch.float64) / dims)).to(x.device)

    turn = -1 if operation.options["inverse"] else 1
    pointwise.rope(x, local.constant(("positions", given or layout), positions), local.constant(dims, rates), turn)


def swiglu(local: LocalOperations, operation: Operation) -> None:
    """H = silu(gate) up."""
    pointwise.swiglu(*local.reads(operation), *local.writes(operation))


def swiglu_backward(local: LocalOperations, operation: Operation) -> None:
    """Gradients of gate and up."""
    pointwise.swiglu_backward(*local.reads(operation), *local.writes(operation))


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
    """New rows where the context has come to, in the last rank's cache."""
    (rows, _), (cache,) = local.reads(operation), local.writes(operation)
    if typing.cast(Sequence[int], operation.options["last"])[local.store.rank]:
        stop = cache.shape[1] - typing.cast(int, operation.options["before"])
        cache[:, stop - rows.shape[1] : stop] = rows


def store_rows(local: LocalOperations, operation: Operation) -> None:
    """To their place."""
    local.writes(operation)[0].copy_(local.reads(operation)[0])


def absorb(local: LocalOperations, operation: Operation) -> None:
    """[q_nope W_uk | q_rope], scaled as the head's own dim asks."""
    (q, w), (absorbed,) = local.reads(operation), local.writes(operation)
    nope = typing.cast(int, operation.options["nope"])
    keys = matrix(w).unflatten(0, (q.shape[2], -1))[:, :nope]
    latent = torch.einsum("bthn,hnc->bthc", q[..., :nope], keys)
    absorbed.copy_(torch.cat([latent, q[..., nope:]], dim=-1) * (absorbed.shape[-1] / q.shape[-1]) ** 0.5)


def latent_values(local: LocalOperations, operation: Operation) -> None:
    """W_uv o."""
    (o, w), (out,) = local.reads(operation), local.writes(operation)
    values = matrix(w).unflatten(0, (o.shape[2], -1))[:, typing.cast(int, operation.options["nope"]) :]
    out.copy_(torch.einsum("bthc,hvc->bthv", o, values))


def best_word(local: LocalOperations, operation: Operation) -> None:
    """Largest logit, and the number of its word."""
    (logits,), (value, ids) = local.reads(operation), local.writes(operation)
    best = logits.flatten(2).max(dim=-1)
    value.copy_(best.values.view_as(value))
    ids.copy_((best.indices + _offset(local, operation)).view_as(ids))


def choose_word(local: LocalOperations, operation: Operation) -> None:
    """The number that comes with the largest value."""
    (values, numbers), (ids,) = local.reads(operation), local.writes(operation)
    batch = ids.shape[0]
    best = values.view(-1, batch).argmax(dim=0, keepdim=True)
    ids.copy_(numbers.view(-1, batch).gather(0, best).view_as(ids))


def wait(local: LocalOperations, operation: Operation) -> None:
    """Nothing to do: what is read is there."""


# -- fine-tuning -----------------------------------------------------------------------------------------------


def bias(local: LocalOperations, operation: Operation) -> None:
    """Add a vector to every token, in place."""
    local.writes(operation)[0].add_(local.reads(operation)[1].view(-1))


def bias_dw(local: LocalOperations, operation: Operation) -> None:
    """Sum of dy over tokens."""
    store_grad(operation, local.writes(operation)[0], local.reads(operation)[0].sum(dim=(0, 1, 2)))


def row_squares(local: LocalOperations, operation: Operation) -> None:
    """Square of the length of each row of a sum."""
    base, product = local.reads(operation)
    local.writes(operation)[0].copy_((matrix(base) + matrix(product)).square().sum(dim=1).view(1, 1, 1, -1))


def row_lengths(local: LocalOperations, operation: Operation) -> None:
    """Trained length over actual length of each row, in place of the latter's square."""
    squares, length = local.reads(operation)
    local.writes(operation)[0].copy_(length.view_as(squares) / squares.sqrt())


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
    pointwise.cross_entropy(*local.reads(operation), *local.writes(operation), _offset(local, operation))


def cross_entropy_join(local: LocalOperations, operation: Operation) -> None:
    """Over all ranks' words."""
    reads, writes = local.reads(operation), local.writes(operation)
    batch = writes[0].shape[0]
    lse, target = [each.view(-1, batch, *each.shape[1:]) for each in reads]
    writes[0].copy_(torch.logsumexp(lse, dim=0))
    writes[1].copy_(target.sum(dim=0))


def cross_entropy_backward(local: LocalOperations, operation: Operation) -> None:
    """(softmax - onehot) scale, or a factor for each sequence; in place of the logits where that is what is written."""
    reads, (grad,) = local.reads(operation), local.writes(operation)
    scale = typing.cast(float, operation.options["scale"])
    if len(reads) == 4:
        factors = reads[3].flatten()
    else:
        like = reads[2]
        factors = local.constant(("scale", scale), lambda: like.new_full((1,), scale))
    pointwise.cross_entropy_backward(*reads[:3], factors, grad, _offset(local, operation))


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
    """Moments, master weights, weights."""
    settings = typing.cast(dict[str, float], operation.options["settings"])
    pointwise.adamw(local.reads(operation)[0].contiguous(), *local.writes(operation), settings)


def matrix(weight: Tensor) -> Tensor:
    """[1, out, 1, in] as [out, in]."""
    return weight.reshape(-1, weight.shape[-1])


def flat(tensor: Tensor) -> Tensor:
    """[B, T, heads, dim] as [B T, heads dim]: a view where it is contiguous."""
    batch, tokens, heads, dim = tensor.shape
    return tensor.reshape(batch * tokens, heads * dim)


def _rows(operation: Operation, tensor: Tensor) -> Tensor:
    """The tokens that an operation is about."""
    rows = typing.cast("tuple[int, int] | None", operation.options.get("rows"))
    return tensor if rows is None else tensor[:, rows[0] : rows[1]]


def _offset(local: LocalOperations, operation: Operation) -> int:
    offset = operation.options.get("offset", 0)
    return offset if isinstance(offset, int) else int(typing.cast(Sequence[int], offset)[local.store.rank])


def store_grad(operation: Operation, target: Tensor, grad: Tensor) -> None:
    """A weight's gradient, or what is added to it."""
    if operation.options.get("accumulate"):
        target.add_(grad.view_as(target))
    else:
        target.copy_(grad.view_as(target))


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
        store_rows,
        absorb,
        latent_values,
        best_word,
        choose_word,
        wait,
        bias,
        bias_dw,
        row_squares,
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

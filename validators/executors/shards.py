"""Tensors of ranks: allocated for a Program's buffers, cut from whole sequences, put together again.

A buffer is [batch, tokens, heads, dim]; row statistics (dim 1: LSE, delta, scores) are [batch, heads, tokens], as
kernels have them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cost_models.masks import TokenRange
from simulator.program.operations import Buffer, Column
from simulator.program.partition import Layout
from simulator.program.setup import Setup

Globals = dict[str, Tensor]


def draw_inputs(setup: Setup, seed: int, *, q_scale: float = 1.0, device: str = "cpu") -> Globals:
    """Q, K, V and dO of whole sequences, standard normal in float64; Q times ``q_scale``."""
    w, generator = setup.workload, torch.Generator().manual_seed(seed)
    dims = {"q": (w.heads, w.head_dim), "k": (w.kv_heads, w.head_dim), "v": (w.kv_heads, w.v_head_dim)}
    dims["do"] = (w.heads, w.v_head_dim)
    drawn = {
        name: torch.randn(w.batch, w.seq_len, heads, dim, generator=generator, dtype=torch.float64).to(device)
        for name, (heads, dim) in dims.items()
    }
    drawn["q"] *= q_scale
    return drawn


def draw_weight(buffer: Buffer, dtype: torch.dtype) -> Tensor:
    """A weight matrix [rows, columns], the same on every rank."""
    generator = torch.Generator().manual_seed(sum(buffer.name.encode()))
    rows, columns = int(np.max(buffer.tokens)), buffer.dim
    return (torch.randn(rows, columns, generator=generator, dtype=torch.float64) / columns**0.5).to(dtype)


def local_tokens(buffer: Buffer, rank: int) -> int:
    """Rows of one rank's shard."""
    return buffer.tokens if isinstance(buffer.tokens, int) else int(buffer.tokens[rank])


def shape_of(buffer: Buffer, rank: int) -> tuple[int, ...]:
    """Shape of one rank's shard."""
    tokens = local_tokens(buffer, rank)
    if buffer.dim == 1:
        return buffer.batch, buffer.heads, tokens
    return buffer.batch, tokens, buffer.heads, buffer.dim


def token_index(ranges: Sequence[TokenRange]) -> Tensor:
    """The tokens of some ranges, in order."""
    return torch.cat([torch.empty(0, dtype=torch.int64), *(torch.arange(r.start, r.stop, r.stride) for r in ranges)])


def cut(whole: Tensor, buffer: Buffer, rank: int) -> Tensor:
    """One rank's shard of a whole sequence, or of a weight; ranks of other pipeline stages have nothing."""
    if not local_tokens(buffer, rank):
        return whole.new_zeros(shape_of(buffer, rank))
    for each in buffer.slices:
        start, stop = int(each.start[rank]), int(each.stop[rank])
        if each.axis is None:
            flat = whole.reshape(-1)[start:stop]
            whole = torch.nn.functional.pad(flat, (0, stop - start - len(flat)))
        else:
            whole = whole.narrow(each.axis, start, stop - start)
    if buffer.layout is not None:
        whole = _rows_and_heads(whole, buffer, rank)
    return whole.reshape(shape_of(buffer, rank)).clone()


def load_shard(inputs: Globals, buffer: Buffer, rank: int, dtype: torch.dtype) -> Tensor:
    """One rank's shard of an input; weights that are not given are drawn."""
    if buffer.layout is None and buffer.name not in inputs:
        return draw_weight(buffer, dtype)
    return cut(inputs[buffer.name], buffer, rank).to(dtype)


def _rows_and_heads(whole: Tensor, buffer: Buffer, rank: int) -> Tensor:
    """The tokens of the layout, and the heads where it has some only; padding is zero."""
    assert buffer.layout is not None
    token_dim, head_dim = (2, 1) if buffer.dim == 1 else (1, 2)
    tokens = token_index(buffer.layout.ranges(rank)).to(whole.device)
    padding = tokens >= whole.shape[token_dim]
    shard = whole.index_select(token_dim, tokens.masked_fill(padding, 0))
    shard.index_fill_(token_dim, torch.nonzero(padding).flatten(), 0)
    if buffer.layout.first_head is None:
        return shard
    return shard.narrow(head_dim, first_head_of(buffer.layout, rank), buffer.heads)


def first_head_of(layout: Layout, rank: int) -> int:
    """The first of the heads that a rank holds."""
    return 0 if layout.first_head is None else int(layout.first_head[rank])


def place_of_view(buffer: Buffer, rank: int) -> tuple[slice, ...]:
    """Which part of its base's tensor a view shows on a rank."""
    first_head, first_row = _at(buffer.first_head, rank), _at(buffer.first_row, rank)
    heads = slice(first_head, first_head + buffer.heads)
    rows = slice(first_row, first_row + local_tokens(buffer, rank))
    every = slice(None)
    return (every, heads, rows) if buffer.dim == 1 else (every, rows, heads)


def _at(column: Column, rank: int) -> int:
    return column if isinstance(column, int) else int(column[rank])


def assemble(buffer: Buffer, shards: Sequence[Tensor], setup: Setup) -> Tensor:
    """The whole tensor from the ranks' shards of tokens and heads.

    What several ranks hold is averaged, so that a rank which differs shows; what nobody holds is NaN.
    """
    layout, w = buffer.layout, setup.workload
    assert layout is not None
    heads = buffer.heads + (0 if layout.first_head is None else int(layout.first_head.max()))
    shape = (buffer.batch, heads, w.seq_len) if buffer.dim == 1 else (buffer.batch, w.seq_len, heads, buffer.dim)
    total, times = shards[0].new_zeros(shape), shards[0].new_zeros(shape)
    for rank, shard in enumerate(shards):
        if not local_tokens(buffer, rank):
            continue
        tokens = token_index(layout.ranges(rank)).to(shard.device)
        rows = torch.nonzero(tokens < w.seq_len).flatten()
        first = first_head_of(layout, rank)
        own = slice(first, first + buffer.heads)
        if buffer.dim == 1:
            total[:, own, tokens[rows]] += shard[:, :, rows]
            times[:, own, tokens[rows]] += 1
        else:
            total[:, tokens[rows], own] += shard[:, rows]
            times[:, tokens[rows], own] += 1
    return total / times

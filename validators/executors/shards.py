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
from simulator.program.operations import Buffer
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
    return torch.cat([torch.arange(each.start, each.stop, each.stride) for each in ranges])


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
        token_dim = 2 if buffer.dim == 1 else 1
        whole = whole.index_select(token_dim, token_index(buffer.layout.ranges(rank)).to(whole.device))
    return whole.reshape(shape_of(buffer, rank)).clone()


def load_shard(inputs: Globals, buffer: Buffer, rank: int, dtype: torch.dtype) -> Tensor:
    """One rank's shard of an input; weights that are not given are drawn."""
    if buffer.layout is None and buffer.name not in inputs:
        return draw_weight(buffer, dtype)
    return cut(inputs[buffer.name], buffer, rank).to(dtype)


def assemble(buffer: Buffer, shards: Sequence[Tensor], setup: Setup) -> Tensor:
    """The whole tensor from the ranks' shards, sharded by tokens or, where each has all tokens, by heads."""
    assert buffer.layout is not None
    token_dim, head_dim = (2, 1) if buffer.dim == 1 else (1, 2)
    if buffer.layout.partition.name == "whole":
        return torch.cat(list(shards), dim=head_dim)
    shape = list(shards[0].shape)
    shape[token_dim] = setup.workload.seq_len
    whole = shards[0].new_zeros(shape)
    for rank, shard in enumerate(shards):
        whole.index_copy_(token_dim, token_index(buffer.layout.ranges(rank)).to(shard.device), shard)
    return whole

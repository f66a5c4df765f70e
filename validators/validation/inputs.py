"""Inputs of a measured run: drawn from a seed in the working dtype, the same on every rank without being sent.

A rank draws a whole tensor, cuts its shard and forgets the rest; what is cut for one schedule is used for the next that
has the same tokens. Q is multiplied by ``Q_SCALE``: few keys have most of the weight, so that wrong weights show.
"""

from __future__ import annotations

import torch
from torch import Tensor

from simulator.program.operations import Buffer
from simulator.program.setup import Setup
from validators.executors.shards import Globals, cut, first_head_of, load_shard
from validators.executors.store import DTYPES

Q_SCALE = 4.0
NAMES = ("q", "k", "v", "do")


class SeededInputs:
    """Q, K, V and dO of one configuration on one rank.

    Parameters
    ----------
    setup : the workload.
    seed : of the draw.
    rank, device : of this process.
    """

    def __init__(self, setup: Setup, seed: int, rank: int, device: torch.device) -> None:
        self._workload, self._seed, self._rank, self._device = setup.workload, seed, rank, device
        self._cut: dict[tuple[object, ...], Tensor] = {}

    def whole(self, name: str) -> Tensor:
        """A whole tensor [B, S, heads, D]."""
        w = self._workload
        heads, dim = {
            "q": (w.heads, w.head_dim), "k": (w.kv_heads, w.head_dim), "v": (w.kv_heads, w.v_head_dim),
            "do": (w.heads, w.v_head_dim),
        }[name]  # fmt: skip
        generator = torch.Generator(self._device).manual_seed(4 * self._seed + NAMES.index(name))
        dtype = DTYPES[w.dtype]
        drawn = torch.empty(w.batch, w.seq_len, heads, dim, dtype=dtype, device=self._device)
        drawn.normal_(generator=generator)
        return drawn.mul_(Q_SCALE) if name == "q" else drawn

    def all(self) -> Globals:
        """All four."""
        return {name: self.whole(name) for name in NAMES}

    def load(self, buffer: Buffer, dtype: torch.dtype) -> Tensor:
        """The shard of the rank."""
        if buffer.layout is None or buffer.slices:
            return load_shard(self.all() if buffer.name in NAMES else {}, buffer, self._rank, dtype)
        first = first_head_of(buffer.layout, self._rank)
        key = (buffer.name, buffer.layout.ranges(self._rank), first, buffer.heads, dtype)
        if key not in self._cut:
            self._cut[key] = cut(self.whole(buffer.name), buffer, self._rank).to(dtype)
        return self._cut[key]

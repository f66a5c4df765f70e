"""Keys and values of earlier tokens, kept for decoding: each context parallel rank has those of its own tokens.

Decoding attends the new tokens, which every rank has, to the keys of every rank, and merges by log-sum-exp
(`simulator.schedules.apb.decode`); the new tokens' own keys and values are appended on the last rank. Per token, layer
and rank the cache takes 2 K D e / ranks bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.layers.net import Net
from simulator.program.operations import Column, Elementwise
from simulator.program.tape import Tensor
from simulator.schedules.apb import decode


def _without(net: Net, tensor: Tensor, repeated: Column) -> Tensor:
    if not np.any(repeated):
        return tensor
    b = tensor.buffer
    own = net.r.tensor(b.name, None, b.heads, b.dim, b.dtype, tokens=b.tokens - repeated, batch=b.batch)
    return net.r.copy("drop_tokens", (tensor,), own, "copy", dropped=repeated)


@dataclass
class KvCache:
    """A layer's keys and values.

    Attributes
    ----------
    positions : of the tokens being computed, first and end; None while their layout says.
    """

    keys: Tensor | None = None
    values: Tensor | None = None
    positions: tuple[int, int] | None = None

    @property
    def filled(self) -> bool:
        """Whether there is anything to attend to."""
        return self.keys is not None

    def keep(self, net: Net, keys: Tensor, values: Tensor, repeated: Column) -> None:
        """Keep what prefill computed, but for the leading rows that other ranks have too."""
        self.keys, self.values = [_without(net, each, repeated) for each in (keys, values)]

    def attend(self, net: Net, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Append the new tokens' keys and values, and attend to all."""
        assert self.keys is not None and self.values is not None
        r, ranks = net.r, net.r.setup.n_ranks
        last = np.arange(ranks) == ranks - 1
        for rows, cache in ((k, self.keys), (v, self.values)):
            size = rows.buffer.bytes
            r.emit("append", Elementwise("copy", size, size), (rows, cache), (cache,), last=last)
        return decode(r, q, self.keys, self.values)[0]

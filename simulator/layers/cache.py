"""Keys and values of earlier tokens, kept for those that come: each context parallel rank has those of its own tokens.

A token's row is its keys and values, 2 K D e bytes a layer, or with latent attention one vector and one shared key
(`latent`). It is packed where the cache has a form (`cost_models.packing`): then communication moves packed rows too,
and a kernel that attends few queries unpacks in registers, while the keys of a chunk of a prompt are unpacked into
memory first. Rows come in one of three ways:

    keep      what prefill of a whole prompt computed
    extend    a chunk's rows, behind those of the chunks before: memory for the whole prompt is taken at the first
    append    new tokens', on the last rank only; every rank has the tokens and attends to its own rows
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from simulator.layers.net import Net
from simulator.program.operations import Column, Elementwise
from simulator.program.partition import Layout
from simulator.program.recorder import Recorder
from simulator.program.tape import Tensor
from simulator.schedules.base import Schedule
from simulator.schedules.chunk import Chunk, one_after_another


@dataclass
class Prompt:
    """A prompt's chunks, for the caches of all layers.

    Parameters
    ----------
    cached : whether the first chunk is there before.
    """

    schedule: Schedule
    chunks: Sequence[Chunk]
    cached: bool = False
    _layouts: dict[tuple[int, int], Layout] = field(default_factory=dict)

    def layout(self, count: int, heads: int) -> Layout:
        """What each rank keeps of the first ``count`` chunks."""
        if (count, heads) not in self._layouts:
            parts = [self.schedule.cached_layout(chunk, heads) for chunk in self.chunks[:count]]
            self._layouts[count, heads] = one_after_another(parts)
        return self._layouts[count, heads]

    def part(self, index: int, heads: int) -> Layout:
        """What each rank keeps of one chunk."""
        return self.schedule.cached_layout(self.chunks[index], heads)


def _without(net: Net, tensor: Tensor, repeated: Column) -> Tensor:
    if not np.any(repeated):
        return tensor
    b = tensor.buffer
    own = net.r.tensor(b.name, None, b.heads, b.dim, b.dtype, tokens=b.tokens - repeated, batch=b.batch)
    return net.r.copy("drop_tokens", (tensor,), own, "copy", dropped=repeated)


@dataclass
class KvCache:
    """A layer's rows.

    Attributes
    ----------
    dtype : of packed rows; None where they are as computed.
    rows : keys and values, or latent rows.
    prompt, index : the chunks of the prompt being computed, and which of them it is.
    positions : of the tokens being computed, first and end; None while their layout says.
    missing : tokens at the end of the context that have not come yet.
    keeps : whether anything is kept; not, where one layer is looked at by itself.
    """

    dtype: str | None = None
    rows: tuple[Tensor, ...] = ()
    prompt: Prompt | None = None
    index: int = 0
    positions: tuple[int, int] | None = None
    missing: int = 0
    keeps: bool = True

    def keep(self, net: Net, rows: Sequence[Tensor], repeated: Column) -> None:
        """Keep what prefill computed, but for the leading rows that other ranks have too."""
        self.rows = tuple([self._packed(net.r, _without(net, each, repeated)) for each in rows])

    def extend(self, net: Net, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Put a chunk's rows behind those of the chunks before; all rows so far."""
        assert self.prompt is not None
        prompt, r, heads = self.prompt, net.r, rows[0].buffer.heads
        chunk = prompt.chunks[self.index]
        kept = [prompt.schedule.cached_rows(r, self._packed(r, each), chunk) for each in rows]
        if not self.rows:
            layout = prompt.layout(len(prompt.chunks), heads)
            self.rows = tuple([r.like(each, each.buffer.name, layout=layout) for each in kept])
        before: Column = prompt.layout(self.index, heads).tokens if self.index else 0
        own, upto = prompt.part(self.index, heads), prompt.layout(self.index + 1, heads)
        for part, whole in zip(kept, self.rows, strict=True):
            name = whole.buffer.name
            r.copy("store_rows", (part,), r.view(whole, name, rows=(before, own.tokens), layout=own), "copy")
        return tuple([r.view(each, each.buffer.name, rows=(0, upto.tokens), layout=upto) for each in self.rows])

    def append(self, net: Net, rows: Sequence[Tensor]) -> None:
        """Put new tokens' rows where the context has come to, on the last rank."""
        r, ranks = net.r, net.r.setup.n_ranks
        last = np.arange(ranks) == ranks - 1
        for each, cache in zip(rows, self.rows, strict=True):
            new = self._packed(r, each)
            size = new.buffer.bytes
            work = Elementwise("copy", size, size)
            r.emit("append", work, (new, cache), (cache,), last=last, before=self.missing)

    @property
    def packs(self) -> bool:
        """Whether rows are packed."""
        return self.dtype is not None

    def _packed(self, r: Recorder, rows: Tensor) -> Tensor:
        return rows if self.dtype is None else r.packed(rows, self.dtype)

"""Attention of a layer that keeps its rows: a whole prompt, a chunk of one, or new tokens after a context.

| what comes | attends | by |
|---|---|---|
| a whole prompt | its own keys | the schedule, on what was computed (not on what the cache keeps of it, if it packs) |
| a chunk | the cache, of it and all before | the schedule, between caches |
| new tokens | the cache of every rank | `attend_all`: own rows on each rank, merged by log-sum-exp |

With latent attention the cache has latent rows, and either the keys and values of all heads are made of them
(expanded), or the queries are made to attend to them as they are (absorbed); see `latent`.
"""

from __future__ import annotations

from functools import partial

from cost_models.models.shape import MlaShape
from simulator.layers.adapters import project
from simulator.layers.cache import KvCache
from simulator.layers.latent import (
    absorb,
    compress,
    expand,
    join_latent,
    latent_queries,
    split,
    values_of_latents,
)
from simulator.layers.net import Net, Var
from simulator.layers.pointwise import rope
from simulator.layers.weights import Weights
from simulator.program.recorder import Partial
from simulator.program.tape import Tensor
from simulator.schedules.apb import attend_own
from simulator.schedules.base import Schedule
from simulator.schedules.combine import combine_partials

Rows = tuple[Tensor, ...]


class CachedAttention:
    """Attention of one layer.

    Parameters
    ----------
    schedule : of a prompt.
    mla : latent attention, where the model has it.
    absorbed : whether heads attend to latent rows.
    heads : query and kv heads of this rank.
    head_dim : of keys.
    """

    def __init__(
        self, net: Net, weights: Weights, schedule: Schedule, mla: MlaShape | None, heads: tuple[int, int],
        head_dim: int, *, absorbed: bool,
    ) -> None:  # fmt: skip
        self._net, self._weights, self._schedule, self._mla = net, weights, schedule, mla
        self._heads, self._head_dim, self._absorbed = heads, head_dim, absorbed and mla is not None

    def __call__(self, x: Var, cache: KvCache) -> Var:
        """O of the heads, from normed hidden states."""
        q, rows, scores = self._projected(x, cache)
        del x
        if not cache.keeps:
            return Var(self._finished(self._attend(q, rows, scores)), None)
        if cache.prompt is not None:
            o = self._chunk(q, cache, rows)
        elif cache.rows:
            o = self._new_tokens(q, cache, rows)
        else:
            o = self._prompt(q, cache, rows, scores)
        return Var(o, None)

    def _projected(self, x: Var, cache: KvCache) -> tuple[Tensor, Rows, Tensor | None]:
        """Queries, the rows to keep, and what the schedule makes of both before they are rotated."""
        net, weights, (heads, kv_heads), positions = self._net, self._weights, self._heads, cache.positions
        if self._mla:
            q = latent_queries(net, weights, self._mla, x, heads, positions).tensor
            q = absorb(net, weights, self._mla, q) if self._absorbed else q
            return q, (join_latent(net, compress(net, weights, self._mla, x, positions)),), None
        plain, keys, values = [
            project(net, weights, f"{name}_proj", x, name, count)
            for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        ]
        whole = cache.prompt is None and not cache.rows
        scores = self._schedule.scores(net.r, plain.tensor, keys.tensor, values.tensor) if whole else None
        turned = [rope(net, each, self._head_dim, positions).tensor for each in (plain, keys)]
        return turned[0], (turned[1], values.tensor), scores

    def _prompt(self, q: Tensor, cache: KvCache, rows: Rows, scores: Tensor | None) -> Tensor:
        o = self._attend(q, rows, scores)
        del scores
        cache.keep(self._net, rows, self._schedule.repeated_rows(self._net.r.setup))
        return self._finished(o)

    def _attend(self, q: Tensor, rows: Rows, scores: Tensor | None) -> Tensor:
        k, v = self._keys_values(rows)
        forward = self._schedule.forward if self._mla else partial(self._schedule.forward_scored, scores=scores)
        return forward(self._net.r, q, k, v)[0]

    def _chunk(self, q: Tensor, cache: KvCache, rows: Rows) -> Tensor:
        assert cache.prompt is not None
        keys_values = self._keys_values(cache.extend(self._net, rows))
        return self._finished(
            self._schedule.attend_cached(self._net.r, q, *keys_values, cache.prompt.chunks[cache.index])
        )  # fmt: skip

    def _new_tokens(self, q: Tensor, cache: KvCache, rows: Rows) -> Tensor:
        r = self._net.r
        cache.append(self._net, rows)
        attended = self._keys_values(cache.rows) if self._mla and not self._absorbed else cache.rows
        v_head_dim = self._mla.kv_lora if self._absorbed and self._mla else None
        part = attend_own(r, q, attended, v_head_dim, missing=cache.missing)
        # Each rank's own part becomes values first: a head's values are fewer numbers than the latent vector.
        return combine_partials(r, Partial(self._finished(part.o), part.lse, part.lowering))[0]

    def _keys_values(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """What a schedule takes: keys and values of heads; or latent rows, with their first features as values."""
        net, mla = self._net, self._mla
        if mla is None:
            return rows[0], rows[1]
        latents = net.r.unpacked(rows[0])
        parts = split(net, Var(latents, None), mla.kv_lora)
        if self._absorbed:
            return latents, parts[0].tensor
        k, v = expand(net, self._weights, mla, parts, self._heads[0])
        return k.tensor, v.tensor

    def _finished(self, o: Tensor) -> Tensor:
        """O of the heads, where it is still over latent vectors."""
        if not self._absorbed or self._mla is None:
            return o
        return values_of_latents(self._net, self._weights, self._mla, o)

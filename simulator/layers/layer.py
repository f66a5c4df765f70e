"""A transformer layer: norm, attention, residual, norm, feed-forward, residual.

    x = x + o_proj(attention(rope(q_proj(n)), rope(k_proj(n)), v_proj(n))),   n = rms_norm(x)
    x = x + down_proj(silu(gate_proj(n)) up_proj(n)),                         n = rms_norm(x)
            down_proj(gelu(up_proj(n))) without gate

as Llama (Touvron et al. 2023, arXiv 2302.13971, section 2.2). Attention is a schedule's; with tensor parallelism it
runs on the heads of this rank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cost_models.models import ModelShape
from simulator.layers.adapters import bottleneck, project
from simulator.layers.cache import KvCache
from simulator.layers.cached import CachedAttention
from simulator.layers.core import Kept, attention_core
from simulator.layers.experts import Experts
from simulator.layers.latent import latent_projections
from simulator.layers.net import Net, Var
from simulator.layers.pointwise import gelu, residual, rms_norm, rope, swiglu
from simulator.layers.routing import Routing
from simulator.layers.tensor_parallel import TensorParallel
from simulator.layers.turns import Steps, finish
from simulator.layers.weights import Weights
from simulator.program.operations import Column
from simulator.program.partition import Layout
from simulator.schedules.base import Schedule


@dataclass(frozen=True)
class Context:
    """What all layers of a model share.

    Parameters
    ----------
    shape : the model.
    schedule : of the attention.
    parallel : tensor parallel ranks.
    home : which tokens each rank of a context parallel group has.
    routing : of so many tokens on each rank to experts.
    absorbed : whether latent attention attends to latent rows, not to keys and values made of them.
    """

    shape: ModelShape
    schedule: Schedule
    parallel: TensorParallel
    home: Layout
    routing: Callable[[Column], Routing] | None = None
    absorbed: bool = False


def transformer_layer(
    net: Net, context: Context, weights: Weights, x: Var, kept: Kept | None = None, cache: KvCache | None = None
) -> Var:
    """Hidden states after a layer; with a cache, its tokens attend to what is in it, or are put there."""
    return finish(layer_in_steps(net, context, weights, x, kept, cache))


def layer_in_steps(
    net: Net, context: Context, weights: Weights, x: Var, kept: Kept | None = None, cache: KvCache | None = None
) -> Steps:
    """The same, with pauses where a sublayer's communication has been issued (`turns`)."""
    normed = rms_norm(net, x, weights["input_norm"])
    attended = attention_block(net, context, weights, normed, kept, cache)
    del normed
    x = residual(net, x, (yield from attended))
    del attended
    normed = rms_norm(net, x, weights["post_norm"])
    fed = feed_forward(net, context, weights, normed)
    del normed
    return residual(net, x, (yield from fed))


def attention_block(
    net: Net, context: Context, weights: Weights, x: Var, kept: Kept | None, cache: KvCache | None
) -> Steps:
    """Projections around a schedule, or around attention to a cache."""
    shape, parallel = context.shape, context.parallel
    x = parallel.enter(net, x, context.home)
    heads, kv_heads = shape.heads // parallel.size, shape.kv_heads // parallel.size
    if cache is None and not context.schedule.has_backward:
        cache = KvCache(keeps=False)
    if cache is not None:
        cached = CachedAttention(net, weights, context.schedule, shape.mla, (heads, kv_heads), shape.head_dim,
                                 absorbed=context.absorbed)  # fmt: skip
        o = cached(x, cache)
        del x
        return (yield from _leave(net, context, weights, "attention", _out(net, context, weights, "o_proj", o)))
    if shape.mla:
        q, k, v = latent_projections(net, weights, shape.mla, x, heads, None)
    else:
        q = rope(net, project(net, weights, "q_proj", x, "q", heads), shape.head_dim)
        k = rope(net, project(net, weights, "k_proj", x, "k", kv_heads), shape.head_dim)
        v = project(net, weights, "v_proj", x, "v", kv_heads)
    del x
    o = attention_core(net, context.schedule, q, k, v, kept)
    del q, k, v
    return (yield from _leave(net, context, weights, "attention", _out(net, context, weights, "o_proj", o)))


def feed_forward(net: Net, context: Context, weights: Weights, x: Var) -> Steps:
    """SwiGLU, of all features or of experts; or GELU, where there is no gate."""
    x = context.parallel.enter(net, x, context.home)
    if "router" in weights:
        assert context.shape.moe is not None and context.routing is not None
        routing = context.routing(x.tensor.buffer.tokens * x.tensor.buffer.batch)
        y = yield from Experts(context.shape.moe, routing).steps(net, weights, x)
        y = context.parallel.leave(net, y)
        if context.parallel.size > 1:
            yield
        return y
    gate = project(net, weights, "gate_proj", x, "gate") if context.shape.gated else None
    up = project(net, weights, "up_proj", x, "up")
    del x
    h = gelu(net, up) if gate is None else swiglu(net, gate, up)
    del gate, up
    return (yield from _leave(net, context, weights, "feed_forward", _out(net, context, weights, "down_proj", h)))


def _leave(net: Net, context: Context, weights: Weights, place: str, x: Var) -> Steps:
    """The end of a sublayer: summed over tensor parallel ranks, then an adapter, where there is one."""
    parallel = context.parallel
    x = parallel.leave(net, x)
    if parallel.size > 1:
        yield
    return bottleneck(net, weights, place, x, parallel, context.home)


def _out(net: Net, context: Context, weights: Weights, target: str, x: Var) -> Var:
    """The projection back to hidden states: a part of their sum over tensor parallel ranks."""
    return project(net, weights, target, x, "x", parallel=context.parallel)

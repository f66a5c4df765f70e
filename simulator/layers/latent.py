"""Multi-head latent attention: queries, keys and values of all heads expanded from small vectors per token.

    c_q = rms_norm(W_qa x),  q = W_qb c_q             (or q = W_q x)        rope on the last d_r features of q
    c, p = split(W_kva x),   k_nope, v = W_kvb rms_norm(c),   k = [k_nope | rope(p)], p shared by all heads

A cache holds the row [rms_norm(c) | rope(p)], 576 values for DeepSeek, and no head's keys. Attention to it is one of

    expanded    k and v of all heads are made of the rows first: 2 Rkv H (nope + Dv) FLOP a row, each time they are read
    absorbed    q_nope k_nope = (q_nope W_uk) c: with queries [q_nope W_uk | q_rope] all heads attend to the rows
                themselves, v = c, and W_uv comes after: 2 H (2 Rkv + rope) FLOP a pair, not 2 H (nope + rope + Dv)

The scale stays 1 / sqrt(nope + rope). Absorbed is right for decoding, which reads every row for one token; expanded for
prefill, where pairs are many to a row.

The compressing products and their norms are computed on every tensor parallel rank; each has gradients from its own
heads only, which are summed with those of other weights that all ranks have. Backward sums dp over heads.
Source: DeepSeek-V2 (arXiv 2405.04434) section 2.1; names as in transformers' modeling_deepseek_v3.py.
"""

from __future__ import annotations

from cost_models.models.shape import MlaShape
from simulator.layers.linear import linear, token_rows
from simulator.layers.net import Net, Var
from simulator.layers.pointwise import rms_norm, rope
from simulator.layers.weights import WeightMaker, Weights
from simulator.program.operations import Elementwise, Gemm
from simulator.program.tape import Tensor

Positions = tuple[int, int] | None


def latent_weights(maker: WeightMaker, at: str, mla: MlaShape) -> Weights:
    """Projections of one layer, but for the output's."""
    shape, hidden = maker.shape, maker.shape.hidden
    queries, expanded = shape.heads * shape.head_dim, shape.heads * (mla.nope + shape.v_head_dim)
    made: Weights = {}
    if mla.q_lora is None:
        made["q_proj"] = maker.rows(at + "q_proj", queries, hidden)
    else:
        made["q_a_proj"] = maker.whole(at + "q_a_proj", mla.q_lora, hidden)
        made["q_a_norm"] = maker.gain(at + "q_a_norm", mla.q_lora)
        made["q_b_proj"] = maker.rows(at + "q_b_proj", queries, mla.q_lora)
    made["kv_a_proj"] = maker.whole(at + "kv_a_proj", mla.kv_lora + mla.rope, hidden)
    made["kv_a_norm"] = maker.gain(at + "kv_a_norm", mla.kv_lora)
    made["kv_b_proj"] = maker.rows(at + "kv_b_proj", expanded, mla.kv_lora)
    for name in ("q_a_norm", "kv_a_norm"):
        if name in made and maker.parallel.size > 1:
            made[name].replicas = ("tp",)
    return made


def latent_projections(
    net: Net, weights: Weights, mla: MlaShape, x: Var, heads: int, positions: Positions
) -> tuple[Var, Var, Var]:
    """Q, K and V of this rank's heads, rotated."""
    q = latent_queries(net, weights, mla, x, heads, positions)
    return q, *expand(net, weights, mla, compress(net, weights, mla, x, positions), heads)


def latent_queries(
    net: Net, weights: Weights, mla: MlaShape, x: Var, heads: int, positions: Positions
) -> Var:  # fmt: skip
    """Q of this rank's heads, rotated."""
    if "q_a_proj" in weights:
        low = rms_norm(net, linear(net, x, weights["q_a_proj"], "latent q"), weights["q_a_norm"])
        q = linear(net, low, weights["q_b_proj"], "q", heads)
        del low
    else:
        q = linear(net, x, weights["q_proj"], "q", heads)
    return rope(net, q, mla.rope, positions)


def compress(net: Net, weights: Weights, mla: MlaShape, x: Var, positions: Positions) -> tuple[Var, Var]:
    """The latent vectors, normed, and the shared keys, rotated."""
    latent, shared = split(net, linear(net, x, weights["kv_a_proj"], "latent kv"), mla.kv_lora)
    shared = rope(net, shared, mla.rope, positions)
    return rms_norm(net, latent, weights["kv_a_norm"]), shared


def expand(net: Net, weights: Weights, mla: MlaShape, parts: tuple[Var, Var], heads: int) -> tuple[Var, Var]:
    """K and V of this rank's heads, from latent vectors and shared keys."""
    expanded = linear(net, parts[0], weights["kv_b_proj"], "expanded kv", heads)
    return _keys_values(net, expanded, parts[1], mla.nope)


def join_latent(net: Net, parts: tuple[Var, Var]) -> Tensor:
    """Latent vector and shared key in one row, as a cache holds them."""
    b, both = parts[0].tensor.buffer, [each.tensor for each in parts]
    whole = _like(net, both[0], "latents", 1, b.dim + both[1].buffer.dim)
    net.r.emit("join", Elementwise("copy", whole.buffer.bytes, whole.buffer.bytes), both, (whole,))
    return whole


def absorb(net: Net, weights: Weights, mla: MlaShape, q: Tensor) -> Tensor:
    """Queries of latent rows: [q_nope W_uk | q_rope], by which every head attends to the same row of the cache."""
    b, weight = q.buffer, weights["kv_b_proj"]
    absorbed = _like(net, q, "q", b.heads, mla.kv_lora + mla.rope)
    work = Gemm(token_rows(q), ((b.heads * mla.kv_lora, mla.nope),), b.dtype, weight_bits=weight.bits)
    net.r.emit("absorb", work, (q, weight.held), (absorbed,), nope=mla.nope)
    return absorbed


def values_of_latents(net: Net, weights: Weights, mla: MlaShape, o: Tensor) -> Tensor:
    """O from weighted sums of latent vectors: the values' part of the expanding matrix comes after attention."""
    b, weight = o.buffer, weights["kv_b_proj"]
    dim = weight.rows // b.heads - mla.nope
    out = _like(net, o, "o", b.heads, dim)
    work = Gemm(token_rows(o), ((b.heads * dim, mla.kv_lora),), b.dtype, weight_bits=weight.bits)
    net.r.emit("latent_values", work, (o, weight.held), (out,), nope=mla.nope)
    return out


def split(net: Net, x: Var, first: int) -> tuple[Var, Var]:
    """The first features, and the others."""
    r, b = net.r, x.tensor.buffer
    parts = [_like(net, x.tensor, name, b.heads, dim) for name, dim in (("latent", first), ("key", b.dim - first))]
    r.emit("split", Elementwise("copy", b.bytes, b.bytes), (x.tensor,), parts)
    outs = net.var(parts[0], x), net.var(parts[1], x)
    if x.slot and net.saves:
        slot, slots = x.slot, [each.slot for each in outs]

        def backward() -> None:
            grads = [each.take() for each in slots if each is not None]
            whole = _like(net, grads[0], "d latent kv", b.heads, b.dim)
            r.emit("join", Elementwise("copy", b.bytes, b.bytes), grads, (whole,))
            net.give(slot, whole)

        net.push(backward)
    return outs


def _keys_values(net: Net, expanded: Var, shared: Var, nope: int) -> tuple[Var, Var]:
    r, b, rotated = net.r, expanded.tensor.buffer, shared.tensor.buffer.dim
    k = _like(net, expanded.tensor, "k", b.heads, nope + rotated)
    v = _like(net, expanded.tensor, "v", b.heads, b.dim - nope)
    size = k.buffer.bytes + v.buffer.bytes
    r.emit("latent_keys", Elementwise("copy", size, size), (expanded.tensor, shared.tensor), (k, v))
    outs = net.var(k, expanded, shared), net.var(v, expanded, shared)
    if outs[0].slot and net.saves:
        slots, ins = [each.slot for each in outs], (expanded.slot, shared.slot)

        def backward() -> None:
            dk, dv = [each.take() for each in slots if each is not None]
            grads = _like(net, dk, "d expanded kv", b.heads, b.dim), _like(net, dk, "d key", 1, rotated)
            r.emit("latent_keys_backward", Elementwise("copy", size, size), (dk, dv), grads)
            for slot, grad in zip(ins, grads, strict=True):
                net.give(slot, grad)

        net.push(backward)
    return outs


def _like(net: Net, tensor: Tensor, name: str, heads: int, dim: int) -> Tensor:
    b = tensor.buffer
    return net.r.tensor(name, b.layout, heads, dim, b.dtype, tokens=b.tokens, batch=b.batch)

"""A plain decoder-only transformer on whole sequences, differentiated by autograd: the reference of layer Programs.

Weights are a dictionary by the names of `simulator.layers.weights`, [out, in] each.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cost_models.models import ModelShape
from cost_models.models.shape import MlaShape
from validators.executors.layering import EPSILON, ROPE_BASE

Weights = Mapping[str, Tensor]


def rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    """X / rms(x) times the gain."""
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + EPSILON) * gain


def rotate(x: Tensor, dims: int) -> Tensor:
    """Rotary embedding of the last ``dims`` features of [B, S, H, D]: complex multiplication of pairs."""
    wide = torch.promote_types(x.dtype, torch.float32)
    keep, turned = x[..., : x.shape[-1] - dims], x[..., x.shape[-1] - dims :].to(wide)
    rate = ROPE_BASE ** (-torch.arange(0, dims, 2, dtype=wide, device=x.device) / dims)
    angle = torch.arange(x.shape[1], dtype=wide, device=x.device)[:, None, None] * rate
    pairs = torch.complex(turned[..., : dims // 2], turned[..., dims // 2 :]) * torch.polar(
        torch.ones_like(angle), angle
    )
    return torch.cat([keep, pairs.real.to(x.dtype), pairs.imag.to(x.dtype)], dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
    """Softmax attention of [B, S, heads, D] tensors."""
    groups = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bhqk,bkhd->bqhd", scores.masked_fill(~allowed, -torch.inf).softmax(dim=-1), v)


def project(w: Weights, name: str, x: Tensor) -> Tensor:
    """A projection with its low-rank update and trained row lengths, where it has them."""
    if name + ".lora_a" not in w:
        return x @ w[name].T
    total = w[name] + w[name + ".lora_b"] @ w[name + ".lora_a"]
    if name + ".length" in w:
        total = total * (w[name + ".length"] / total.detach().norm(dim=1))[:, None]
    return x @ total.T


def adapt(w: Weights, name: str, x: Tensor) -> Tensor:
    """A bottleneck after a sublayer, where there is one."""
    if name + ".down" not in w:
        return x
    h = torch.nn.functional.gelu(x @ w[name + ".down"].T + w[name + ".down_bias"])
    return x + h @ w[name + ".up"].T + w[name + ".up_bias"]


def latent(shape: ModelShape, mla: MlaShape, w: Weights, at: str, n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Q, K, V of latent attention."""
    if mla.q_lora:
        q = rms_norm(n @ w[at + "q_a_proj"].T, w[at + "q_a_norm"]) @ w[at + "q_b_proj"].T
    else:
        q = n @ w[at + "q_proj"].T
    low, shared = (n @ w[at + "kv_a_proj"].T).split([mla.kv_lora, mla.rope], dim=-1)
    expanded = (rms_norm(low, w[at + "kv_a_norm"]) @ w[at + "kv_b_proj"].T).unflatten(2, (shape.heads, -1))
    k, v = expanded.split([mla.nope, shape.v_head_dim], dim=-1)
    rotated = rotate(shared[:, :, None], mla.rope).expand(-1, -1, shape.heads, -1)
    return rotate(q.unflatten(2, (shape.heads, -1)), mla.rope), torch.cat([k, rotated], dim=-1), v


def mixture(shape: ModelShape, w: Weights, at: str, n: Tensor, visits: Tensor) -> Tensor:
    """Experts; ``visits`` [B, S, E] says which of them a token visits."""
    assert shape.moe is not None
    gate = (n @ w[at + "router"].T).masked_fill(~visits, -torch.inf).softmax(dim=-1).nan_to_num()
    y = torch.zeros_like(n)
    for expert in range(shape.moe.experts):
        parts = [w[at + f"experts_{name}"][expert].T for name in ("gate", "up", "down")]
        h = torch.nn.functional.silu(n @ parts[0]) * (n @ parts[1])
        y = y + gate[..., expert, None] * (h @ parts[2])
    if shape.moe.shared:
        parts = [w[at + f"shared_{name}_proj"].T for name in ("gate", "up", "down")]
        y = y + (torch.nn.functional.silu(n @ parts[0]) * (n @ parts[1])) @ parts[2]
    return y


def dense_layer(
    shape: ModelShape, w: Weights, at: str, x: Tensor, allowed: Tensor, visits: Tensor | None = None
) -> Tensor:
    """One layer on [B, S, hidden]."""
    n = rms_norm(x, w[at + "input_norm"])
    o = attend(*latent(shape, shape.mla, w, at, n), allowed) if shape.mla else _attend_heads(shape, w, at, n, allowed)
    x = x + adapt(w, at + "attention", project(w, at + "o_proj", o.flatten(2)))
    n = rms_norm(x, w[at + "post_norm"])
    if at + "router" in w:
        assert visits is not None
        return x + mixture(shape, w, at, n, visits)
    up = project(w, at + "up_proj", n)
    gated = at + "gate_proj" in w
    h = torch.nn.functional.silu(project(w, at + "gate_proj", n)) * up if gated else torch.nn.functional.gelu(up)
    return x + adapt(w, at + "feed_forward", project(w, at + "down_proj", h))


def _attend_heads(shape: ModelShape, w: Weights, at: str, n: Tensor, allowed: Tensor) -> Tensor:
    batch, tokens, _ = n.shape
    q = project(w, at + "q_proj", n).view(batch, tokens, shape.heads, shape.head_dim)
    k = project(w, at + "k_proj", n).view(batch, tokens, shape.kv_heads, shape.head_dim)
    v = project(w, at + "v_proj", n).view(batch, tokens, shape.kv_heads, shape.v_head_dim)
    return attend(rotate(q, shape.head_dim), rotate(k, shape.head_dim), v, allowed)


def cached(shape: ModelShape, w: Weights, at: str, n: Tensor) -> dict[str, Tensor]:
    """What a cache holds of normed hidden states: keys (rotated) and values [B, S, K, D], or latent rows."""
    if shape.mla:
        low, shared = (n @ w[at + "kv_a_proj"].T).split([shape.mla.kv_lora, shape.mla.rope], dim=-1)
        normed = rms_norm(low, w[at + "kv_a_norm"])[:, :, None]
        return {"latents": torch.cat([normed, rotate(shared[:, :, None], shape.mla.rope)], dim=-1)}
    keys, values = [(n @ w[at + name].T).unflatten(2, (shape.kv_heads, -1)) for name in ("k_proj", "v_proj")]
    return {"keys": rotate(keys, shape.head_dim), "values": values}


def prefill(
    shape: ModelShape, w: Weights, ids: Tensor, allowed: Tensor, visits: Tensor | None = None
) -> dict[str, Tensor]:
    """Logits [B, V] after the last token, and what a cache holds of every layer; ``visits`` as of `dense_layer`."""
    x, found = w["embed_tokens"][ids], {}
    for index in range(shape.layers):
        at, n = f"layers.{index}.", rms_norm(x, w[f"layers.{index}.input_norm"])
        found |= {f"{name} {index}": rows for name, rows in cached(shape, w, at, n).items()}
        x = dense_layer(shape, w, at, x, allowed, visits)
    last = rms_norm(x[:, -1], w["norm"])
    return {**found, "logits": last @ w["embed_tokens" if shape.tied_embeddings else "lm_head"].T}


def model_loss(
    shape: ModelShape, w: Weights, ids: Tensor, labels: Tensor, allowed: Tensor, visits: Tensor | None = None
) -> Tensor:
    """Loss of each token [B, S] from token ids [B, S]."""
    x = w["embed_tokens"][ids]
    for index in range(shape.layers):
        x = dense_layer(shape, w, f"layers.{index}.", x, allowed, visits)
    logits = rms_norm(x, w["norm"]) @ w["embed_tokens" if shape.tied_embeddings else "lm_head"].T
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)


def pair_loss(
    name: str, policy: Tensor, reference: Tensor | None, settings: Mapping[str, float], tokens: int
) -> Tensor:
    """Mean loss over pairs, from log-probabilities of sequences [2 n]; chosen and rejected take turns."""
    chosen, rejected = policy[0::2], policy[1::2]
    if name == "dpo":
        assert reference is not None
        margin = chosen - rejected - reference[0::2] + reference[1::2]
        return -torch.nn.functional.logsigmoid(settings["beta"] * margin).mean()
    odds = [each / tokens - torch.log(1 - torch.exp(each / tokens)) for each in (chosen, rejected)]
    ratio = torch.nn.functional.logsigmoid(odds[0] - odds[1])
    return -(chosen / tokens + settings["weight"] * ratio).mean()


def draw_weights(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Weights in float64: matrices normal with variance 1 / in, gains about 1."""
    generator, drawn = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes.items():
        values = torch.randn(*shape, generator=generator, dtype=torch.float64)
        drawn[name] = 1 + values / 4 if len(shape) == 1 else values / shape[-1] ** 0.5
    return drawn

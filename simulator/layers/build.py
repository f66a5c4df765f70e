"""All weights of a layer, by what the model's shape says of attention and feed-forward."""

from __future__ import annotations

from simulator.layers.experts import expert_weights
from simulator.layers.fp8 import check_matrices
from simulator.layers.latent import latent_weights
from simulator.layers.weights import WeightMaker, Weights


def layer_weights(maker: WeightMaker, index: int, experts_over: int = 1) -> Weights:
    """Weights of a layer; experts are spread over neighbouring data parallel ranks."""
    shape, at = maker.shape, f"layers.{index}."
    if shape.mla:
        attention = latent_weights(maker, at, shape.mla)
    else:
        attention = {
            "q_proj": maker.rows(at + "q_proj", shape.heads * shape.head_dim, shape.hidden),
            "k_proj": maker.rows(at + "k_proj", shape.kv_heads * shape.head_dim, shape.hidden),
            "v_proj": maker.rows(at + "v_proj", shape.kv_heads * shape.v_head_dim, shape.hidden),
        }
    if shape.moe and index >= shape.moe.first_dense:
        forward = expert_weights(maker, at, shape.moe, experts_over)
    else:
        forward = maker.mlp(at, shape.intermediate)
    weights = {
        "input_norm": maker.gain(at + "input_norm", shape.hidden),
        **attention,
        "o_proj": maker.columns(at + "o_proj", shape.hidden, shape.heads * shape.v_head_dim),
        "post_norm": maker.gain(at + "post_norm", shape.hidden),
        **forward,
    }
    for name, each in weights.items():
        each.fp8 = maker.fp8 and each.rows > 1 and name != "router"
    check_matrices(weights.values())
    return weights

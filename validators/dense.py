"""Dense attention, the reference: every score is materialised, in float64.

    s = q k^T / sqrt(D), -inf where not allowed      lse = log sum_k exp(s)      o = exp(s - lse) v
    p = exp(s - lse)   dv = p^T dO   ds = p (dO v^T - delta)   dq = ds k / sqrt(D)   dk = ds^T q / sqrt(D)

with delta = rowsum(dO o). Rows that see no key have o = 0 and lse = -inf. Tensors are [B, S, heads, D], the LSE
[B, H, S].
Source: Dao 2023 (arXiv 2307.08691) section 2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def dense_forward(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
    """O [B, Sq, H, Dv] and LSE [B, H, Sq]; ``allowed`` is [Sq, Sk] or [B, H, Sq, Sk], None for all."""
    score = _scores(q, _per_query_head(k, q), allowed)
    lse = torch.logsumexp(score, dim=-1)
    o = torch.einsum("bhqk,bkhd->bqhd", _probabilities(score, lse), _per_query_head(v, q))
    return o, lse


def dense_backward(
    q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor, delta: Tensor, allowed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """dQ, dK, dV from a given LSE and delta, both [B, H, Sq]: of all keys, or of those given only."""
    keys, values = _per_query_head(k, q), _per_query_head(v, q)
    p = _probabilities(_scores(q, keys, allowed), lse)
    dv = torch.einsum("bhqk,bqhd->bkhd", p, do)
    ds = p * (torch.einsum("bqhd,bkhd->bhqk", do, values) - delta[..., None]) / math.sqrt(q.shape[-1])
    dq, dk = torch.einsum("bhqk,bkhd->bqhd", ds, keys), torch.einsum("bhqk,bqhd->bkhd", ds, q)
    return dq, _sum_groups(dk, k), _sum_groups(dv, v)


def row_dot(do: Tensor, o: Tensor) -> Tensor:
    """Delta = rowsum(dO o), [B, H, S]."""
    return (do * o).sum(dim=-1).transpose(1, 2)


def _scores(q: Tensor, keys: Tensor, allowed: Tensor | None) -> Tensor:
    score = torch.einsum("bqhd,bkhd->bhqk", q, keys) / math.sqrt(q.shape[-1])
    return score if allowed is None else score.masked_fill(~allowed, -math.inf)


def _probabilities(score: Tensor, lse: Tensor) -> Tensor:
    """exp(score - lse), 0 in rows without a key."""
    return torch.exp(score - lse.masked_fill(lse == -math.inf, 0.0)[..., None])


def _per_query_head(tensor: Tensor, q: Tensor) -> Tensor:
    return tensor.repeat_interleave(q.shape[2] // tensor.shape[2], dim=2)


def _sum_groups(gradient: Tensor, like: Tensor) -> Tensor:
    batch, tokens, _, dim = gradient.shape
    return gradient.reshape(batch, tokens, like.shape[2], -1, dim).sum(dim=3)

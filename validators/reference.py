"""Dense attention in blocks of rows, so that long sequences fit: the reference of checks on GPUs, and of sampled rows.

    rows     o, lse, dq of some query rows need all keys;              delta = rowsum(dO o)
    columns  dk, dv of some keys need q, dO, lse and delta of all rows

One KV head and its queries at a time, converted to float64 as they are used; the same formulas as `dense`.
Source: Dao 2023 (arXiv 2307.08691) section 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cost_models.masks import Mask
from validators.dense import dense_backward, dense_forward, row_dot
from validators.executors.shards import Globals

BLOCK_PAIRS = 1 << 26
"""Scores held at once: 512 MiB in fp64, a few times."""


def reference_rows(inputs: Globals, mask: Mask, rows: Tensor) -> Globals:
    """O, LSE, delta and dQ of some query rows of whole sequences.

    Parameters
    ----------
    inputs : q, k, v and do, [B, S, heads, D].
    rows : their tokens.

    Returns
    -------
    o and dq [B, rows, H, D], lse and delta [B, H, rows].
    """
    q, k, v, do = (inputs[name] for name in ("q", "k", "v", "do"))
    keys, parts = torch.arange(k.shape[1], device=k.device), []
    for some in rows.split(_block_rows(k.shape[1], q, k)):
        allowed = mask_of(mask, some, keys)
        parts.append([_rows_of_head(q[:, some], k, v, do[:, some], allowed, head) for head in range(k.shape[2])])
    blocks = [
        {name: torch.cat([head[name] for head in heads], dim=_head_dim(name)) for name in heads[0]} for heads in parts
    ]
    return {name: torch.cat([block[name] for block in blocks], dim=3 - _head_dim(name)) for name in blocks[0]}


def reference_columns(inputs: Globals, mask: Mask, columns: Tensor, lse: Tensor, delta: Tensor) -> Globals:
    """DK and dV of some keys, [B, columns, K, D], given LSE and delta of all rows, [B, H, S]."""
    q, k, v, do = (inputs[name] for name in ("q", "k", "v", "do"))
    rows = torch.arange(q.shape[1], device=q.device)
    dk, dv = k[:, columns].double().zero_(), v[:, columns].double().zero_()
    for some in rows.split(_block_rows(len(columns), q, k)):
        allowed = mask_of(mask, some, columns)
        for head in range(k.shape[2]):
            group, one = _queries_of(head, q, k), slice(head, head + 1)
            _, block_dk, block_dv = dense_backward(
                q[:, some, group].double(), k[:, columns, one].double(), v[:, columns, one].double(),
                do[:, some, group].double(), lse[:, group, some].double(), delta[:, group, some].double(), allowed,
            )  # fmt: skip
            dk[:, :, one] += block_dk
            dv[:, :, one] += block_dv
    return {"dk": dk, "dv": dv}


def reference(inputs: Globals, mask: Mask) -> Globals:
    """All of O, LSE, dQ, dK and dV."""
    tokens = torch.arange(inputs["q"].shape[1], device=inputs["q"].device)
    rows = reference_rows(inputs, mask, tokens)
    return rows | reference_columns(inputs, mask, tokens, rows["lse"], rows["delta"])


def reference_of_stored_scores(inputs: Globals, mask: Mask, dtype: torch.dtype) -> Globals:
    """All of O, LSE, dQ, dK and dV where scores, weights and their gradients are kept in ``dtype`` (`schedules.rsa`).

    Products are exact, and rounded where the algorithm keeps them: QK^T, its multiple by the scale, P, dP and dS. What
    is left is the error of accumulation alone, for which the tolerance is that of every other schedule: a score of 16
    is 0.03 off in bf16, and its weight 3 %, whoever multiplies.
    """
    q, k, v, do = (inputs[name].double() for name in ("q", "k", "v", "do"))
    tokens, scale, heads = torch.arange(q.shape[1], device=q.device), q.shape[-1] ** -0.5, []
    hidden = ~mask_of(mask, tokens, tokens)[None, :, None, :]

    def kept(values: Tensor) -> Tensor:
        return values.to(dtype).double()

    for head in range(k.shape[2]):
        group = _queries_of(head, q, k)
        own, gradient, keys, values = q[:, :, group], do[:, :, group], k[:, :, head], v[:, :, head]
        score = kept(kept(torch.einsum("bqhd,bkd->bqhk", own, keys)) * scale).masked_fill_(hidden, -torch.inf)
        lse = torch.logsumexp(score, dim=-1)
        p = kept(torch.exp_(score - lse.masked_fill(lse == -torch.inf, 0.0)[..., None]))
        o = torch.einsum("bqhk,bkd->bqhd", p, values)
        change = kept(torch.einsum("bqhd,bkd->bqhk", gradient, values)) - (gradient * o).sum(dim=-1, keepdim=True)
        ds = kept(p * change * scale)
        heads.append({
            "o": o, "lse": lse.transpose(1, 2), "dq": torch.einsum("bqhk,bkd->bqhd", ds, keys),
            "dk": torch.einsum("bqhk,bqhd->bkd", ds, own)[:, :, None],
            "dv": torch.einsum("bqhk,bqhd->bkd", p, gradient)[:, :, None],
        })  # fmt: skip
    return {name: torch.cat([each[name] for each in heads], dim=_head_dim(name)) for name in heads[0]}


def mask_of(mask: Mask, rows: Tensor, columns: Tensor) -> Tensor:
    """Which of these keys these queries see, from the mask's definition."""
    allowed = mask.allowed(rows.cpu().numpy()[:, None], columns.cpu().numpy()[None, :])
    return torch.from_numpy(allowed).to(rows.device)


def relative_error(got: Tensor, want: Tensor) -> float:
    """||got - want|| / ||want|| over what is finite in the reference; infinite where anything else is not as it says.

    Rows without a key have an LSE of minus infinity, in both.

    >>> relative_error(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])), relative_error(
    ...     torch.tensor([torch.nan, 2.0]), torch.tensor([1.0, 2.0]))
    (0.0, inf)
    """
    got, want = got.to(torch.float64), want.to(torch.float64)
    finite = want.isfinite()
    if not bool((got[~finite] == want[~finite]).all()) or not bool(got[finite].isfinite().all()):
        return torch.inf
    size = torch.linalg.vector_norm(want[finite]).item()
    error = torch.linalg.vector_norm(got[finite] - want[finite]).item()
    return error / size if size else error


def _rows_of_head(q: Tensor, k: Tensor, v: Tensor, do: Tensor, allowed: Tensor, head: int) -> Globals:
    group = _queries_of(head, q, k)
    own, keys, values, gradient = (
        each.double() for each in (q[:, :, group], k[:, :, head : head + 1], v[:, :, head : head + 1], do[:, :, group])
    )
    o, lse = dense_forward(own, keys, values, allowed)
    delta = row_dot(gradient, o)
    dq, _, _ = dense_backward(own, keys, values, gradient, lse, delta, allowed)
    return {"o": o, "lse": lse, "delta": delta, "dq": dq}


def _block_rows(columns: int, q: Tensor, k: Tensor) -> int:
    """Query rows whose scores, of all batch rows and queries of a KV head, are held at once."""
    return max(1, BLOCK_PAIRS // (columns * q.shape[0] * q.shape[2] // k.shape[2]))


def _queries_of(head: int, q: Tensor, k: Tensor) -> slice:
    group = q.shape[2] // k.shape[2]
    return slice(head * group, (head + 1) * group)


def _head_dim(name: str) -> int:
    return 1 if name in ("lse", "delta") else 2

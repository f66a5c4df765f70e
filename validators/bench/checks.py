"""Whether an attention kernel's results are right at the very shape that is timed: sampled rows and columns.

In float64, for a few (batch row, head) pairs: 256 random query rows give O, LSE and dQ, 256 random key columns dK and
dV over all query heads of the group, with the kernel's LSE and O, which the rows have shown to be right. The error of
a tensor is ||got - want|| / ||want|| over what was sampled, of the LSE the largest absolute difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

SAMPLES = 256
PAIRS = 2
TOLERANCE = {"o": 6e-3, "lse": 2e-3, "dq": 1.5e-2, "dk": 1.5e-2, "dv": 1.5e-2}
"""bf16 rounds O and P by 2^-9 each: 1.7e-3 in O, 2 to 4e-3 in gradients; a wrong LSE or a missed key is far above."""


@dataclass
class Problem:
    """Inputs and results of one attention problem: [B, n, H, D]; LSE [B, H, n].

    ``documents`` are lengths of packed documents, each attended by itself; none is one sequence.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    do: Tensor
    left: int | None
    right: int | None
    o: Tensor | None = None
    lse: Tensor | None = None
    documents: tuple[int, ...] = ()

    @property
    def corner(self) -> int:
        """Column minus row on the diagonal through the bottom right corner."""
        return self.k.shape[1] - self.q.shape[1]

    def seen(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Which of the pairs the window lets through, [rows, columns]."""
        apart = columns[None, :] - rows[:, None] - self.corner
        allowed = torch.ones_like(apart, dtype=torch.bool)
        if self.left is not None:
            allowed &= apart >= -self.left
        if self.right is not None:
            allowed &= apart <= self.right
        if self.documents:
            ends = torch.tensor(self.documents, device=rows.device).cumsum(0)
            of_rows, of_columns = (torch.bucketize(each, ends, right=True) for each in (rows, columns))
            allowed &= of_rows[:, None] == of_columns[None, :]
        return allowed


def draw_samples(length: int, seed: int, device: torch.device) -> Tensor:
    """Distinct positions, the first and last among them."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(length, generator=generator)[:SAMPLES]
    drawn[0], drawn[-1] = 0, length - 1
    return drawn.unique().to(device)


def draw_heads(problem: Problem, seed: int) -> list[tuple[int, int]]:
    """Distinct (batch row, query head) pairs."""
    batch, heads = problem.q.shape[0], problem.q.shape[2]
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(batch * heads, generator=generator)[:PAIRS].tolist()
    return [divmod(each, heads) for each in drawn]


def check_forward(problem: Problem, o: Tensor, lse: Tensor, seed: int) -> dict[str, float]:
    """Errors of O and LSE."""
    rows = draw_samples(problem.q.shape[1], seed, problem.q.device)
    outputs, errors = [], [0.0]
    for batch, head in draw_heads(problem, seed):
        want_o, want_lse, _ = _rows(problem, batch, head, rows)
        outputs.append((o[batch, rows, head], want_o))
        errors.append(_nan_to_inf((lse[batch, head, rows].double() - want_lse).abs().max()))
    return {"o": _relative(outputs), "lse": max(errors)}


def check_backward(problem: Problem, gradients: tuple[Tensor, Tensor, Tensor], seed: int) -> dict[str, float]:
    """Errors of dQ, dK and dV; the problem has the kernel's O and LSE."""
    dq, dk, dv = gradients
    device, group = problem.q.device, problem.q.shape[2] // problem.k.shape[2]
    rows, columns = draw_samples(problem.q.shape[1], seed, device), draw_samples(problem.k.shape[1], seed + 1, device)
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {"dq": [], "dk": [], "dv": []}
    for batch, head in draw_heads(problem, seed):
        pairs["dq"].append((dq[batch, rows, head], _rows(problem, batch, head, rows)[2]))
        want_dk, want_dv = _columns(problem, batch, head // group, columns)
        pairs["dk"].append((dk[batch, columns, head // group], want_dk))
        pairs["dv"].append((dv[batch, columns, head // group], want_dv))
    return {name: _relative(each) for name, each in pairs.items()}


def failures(errors: Mapping[str, float]) -> str | None:
    """What is past its tolerance, None if nothing is."""
    past = [
        f"{name} {error:.1e} > {TOLERANCE[name]:.1e}" for name, error in errors.items() if not error <= TOLERANCE[name]
    ]
    return ", ".join(past) or None


def _rows(problem: Problem, batch: int, head: int, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """O, LSE and dQ of some rows of one head, from all keys."""
    kv_head = head // (problem.q.shape[2] // problem.k.shape[2])
    q, do = (each[batch, rows, head].double() for each in (problem.q, problem.do))
    k, v = (each[batch, :, kv_head].double() for each in (problem.k, problem.v))
    scale = q.shape[-1] ** -0.5
    score = (q @ k.T) * scale
    columns = torch.arange(k.shape[0], device=q.device)
    score.masked_fill_(~problem.seen(rows, columns), -torch.inf)
    lse = torch.logsumexp(score, dim=-1)
    p = torch.exp_(score.sub_(lse.masked_fill(lse == -torch.inf, 0.0)[:, None]))
    o = p @ v
    ds = p * (do @ v.T - (do * o).sum(dim=-1, keepdim=True))
    return o, lse, (ds @ k) * scale


def _columns(problem: Problem, batch: int, kv_head: int, columns: Tensor) -> tuple[Tensor, Tensor]:
    """DK and dV of some columns of one KV head, over all rows of the query heads of its group."""
    assert problem.o is not None and problem.lse is not None
    group = problem.q.shape[2] // problem.k.shape[2]
    k, v = (each[batch, columns, kv_head].double() for each in (problem.k, problem.v))
    dk, dv, scale = torch.zeros_like(k), torch.zeros_like(v), k.shape[-1] ** -0.5
    hidden = ~problem.seen(torch.arange(problem.q.shape[1], device=k.device), columns)
    for head in range(kv_head * group, (kv_head + 1) * group):
        q, do, o = (each[batch, :, head].double() for each in (problem.q, problem.do, problem.o))
        lse = problem.lse[batch, head].double()
        p = torch.exp_(((q @ k.T) * scale).sub_(lse[:, None])).masked_fill_(hidden, 0.0)
        dv += p.T @ do
        ds = p * (do @ v.T - (do * o).sum(dim=-1, keepdim=True))
        dk += (ds.T @ q) * scale
    return dk, dv


def _relative(pairs: list[tuple[Tensor, Tensor]]) -> float:
    got = torch.cat([each.double().flatten() for each, _ in pairs])
    want = torch.cat([each.flatten() for _, each in pairs])
    return _nan_to_inf((got - want).norm() / want.norm())


def _nan_to_inf(error: Tensor) -> float:
    """A NaN is an infinite error; no tolerance lets it pass."""
    return float(torch.nan_to_num(error, nan=torch.inf, posinf=torch.inf))

"""Ring Self-Attention: the whole rows of scores are stored, keys go round, then values; no online softmax.

    forward    K round: scores of own queries and visiting keys;  softmax;  V round: O += P_i V_i
               2 (P-1) hops of A_kv e bytes                       A_kv = B (S/P) K D elements
    backward   V round: dP;  dS = P (dP - delta);  K round: dQ += dS_i K_i;  dV = P^T dO and dK = dS^T Q of all tokens
               2 (P-1) hops of A_kv e, and all-reduces of dK and of dV, 2 (P-1)/P of P A_kv e bytes each

In units of B S K D elements and for large P that is 2 forward and 6 backward, the "RingAttention" of BurstAttention's
paper (Table 1), which is not Liu et al.'s. The scores take B H (S/P) S e bytes, and once more in backward. Masked pairs
are computed, too: 2 D + 2 Dv FLOP for every pair forward and twice that backward (nothing is recomputed).
Source: Li et al. 2021 (arXiv 2105.13120) section 3.2; github MayDomine/Burst-Attention benchmarks/ring_attn.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from simulator.program.operations import Column, Elementwise, Gemm
from simulator.program.partition import Layout, Partition
from simulator.program.recorder import Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, Schedule, split_sequence


@dataclass(frozen=True)
class Rsa(Schedule):
    """Ring Self-Attention."""

    name: ClassVar[str] = "rsa"
    source: ClassVar[str] = "Li et al. 2021, arXiv 2105.13120, section 3.2"
    whole_prompt: ClassVar[str] = "its scores are those of a whole prompt"

    def resolve(self, setup: Setup) -> Self:
        """There are no options."""
        return self

    def check(self, setup: Setup) -> None:
        """Refuse a sequence that the ranks do not divide."""
        self.input_partition(setup)

    def input_partition(self, setup: Setup) -> Partition:
        """Contiguous: a rank's scores have its keys' columns in the order of the sequence."""
        return split_sequence("contiguous", setup)

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """A round of keys, softmax, a round of values."""
        w = r.setup.workload
        p = _score_rows(r, q, k, "p")
        lse = r.tensor("lse", q.layout, w.heads, 1, "fp32")
        size = p.buffer.bytes
        r.emit("softmax", Elementwise("reduce", size, size), (), (p, lse), mask=w.mask)
        o = r.tensor("o", q.layout, w.heads, w.v_head_dim, w.dtype)
        _weigh(r, p, v, o)
        return o, lse, p

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A round of values, softmax's derivative, a round of keys; dK and dV of all tokens are summed over ranks."""
        o, _, p = saved
        ds, delta = _score_rows(r, do, v, "ds"), r.row_dot(do, o)
        dv = self._reduced(r, p, do, v, "dv")
        size = ds.buffer.bytes
        r.emit("softmax_backward", Elementwise("accumulate", 2 * size, size), (p, delta), (ds,), dim=q.buffer.dim)
        dk = self._reduced(r, ds, q, k, "dk")
        dq = r.like(q, "dq")
        _weigh(r, ds, k, dq)
        return dq, dk, dv

    def _reduced(self, r: Recorder, weights: Tensor, rows: Tensor, like: Tensor, name: str) -> Tensor:
        """weights^T rows, for all tokens, summed over ranks; each rank keeps its own."""
        w, b = r.setup.workload, like.buffer
        whole = r.tensor(f"{name}, all", Layout.whole(w.seq_len, r.setup.n_ranks), b.heads, b.dim, b.dtype)
        work = _gemm(r, rows.buffer.tokens, ((w.seq_len, rows.buffer.dim),))
        r.product("weigh_transposed", (weights, rows), whole, work)
        if r.setup.n_ranks == 1:
            return whole
        r.all_reduce(whole)
        first = like.layout.partition.start[:, 0]
        own = r.view(whole, name, rows=(first, b.tokens), layout=like.layout)
        return r.copy("cast", (own,), r.like(like, name), "copy")


def _gemm(r: Recorder, tokens: Column, shapes: tuple[tuple[int, int], ...], head_pairs: int = 0) -> Gemm:
    w = r.setup.workload
    return Gemm(tokens * (w.batch * w.heads), shapes, w.dtype, head_pairs)


def _score_rows(r: Recorder, rows: Tensor, columns: Tensor, name: str) -> Tensor:
    """Products of own rows with those of all ranks, which come round: [B, S/P, H, S]; those of Q and K are scaled."""
    w, ring, b = r.setup.workload, r.setup.flat_ring(), rows.buffer
    scores = r.tensor(name, rows.layout, w.heads, w.seq_len, w.dtype)
    for step in r.steps(ring.size):
        near = r.shift(ring, columns)[0] if step < ring.size - 1 else columns
        pairs = w.pairs * w.heads if name == "p" and step == 0 else 0
        work = _gemm(r, b.tokens, ((columns.buffer.tokens, b.dim),), pairs)  # type: ignore[arg-type]
        r.product("scores", (rows, columns), scores, work, scaled=name == "p", first_column=_first(columns))
        columns = near
    return scores


def _weigh(r: Recorder, weights: Tensor, columns: Tensor, total: Tensor) -> None:
    """Total = weights times the rows of all ranks, which come round."""
    ring = r.setup.flat_ring()
    for step in r.steps(ring.size):
        near = r.shift(ring, columns)[0] if step < ring.size - 1 else columns
        b = columns.buffer
        work = _gemm(r, total.buffer.tokens, ((b.dim, b.tokens),))  # type: ignore[arg-type]
        r.product("weigh", (weights, columns), total, work, first_column=_first(columns), first=step == 0)
        columns = near


def _first(columns: Tensor) -> Column:
    """Column of each rank's visiting keys."""
    layout = columns.layout
    return np.asarray(layout.partition.start[layout.owner, 0])

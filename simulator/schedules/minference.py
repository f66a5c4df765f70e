"""MInference: each head attends to few key columns ("vertical") and diagonals ("slash"), chosen from its last queries.

For every head: the last 64 queries attend to all keys; the weights are summed by column and by diagonal q - k; the v
columns and s diagonals with the largest sums are kept, always among them the first 30 columns (the sink) and the
nearest 100 diagonals. All other pairs are left out.

    index       2 64 S D FLOP per head and top-k;  attention   about 4 S D (v + s') FLOP per head, s' = s in tiles of 64

It is approximate (exact under its own mask) and for inference only. Attention is priced as a causal window of v + s'
keys. On several GPUs heads are scattered as in Ulysses; a rank's heads choose for themselves. The defaults are the
means over the 1024 heads of the released configuration for Llama-3.1-8B, of which each has its own (v, s): (100, 800)
x 297, (1000, 6096) x 279, (30, 800) x 175, (3500, 100) x 149, (500, 700) x 120, (100, 750) x 4. Source: Jiang et al.
2024 (arXiv 2407.02490) section 3.2; github microsoft/MInference (vertical_and_slash_kernel).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from cost_models.masks import SlidingWindow, TokenRange, lower
from simulator.program.lowered import column_of
from simulator.program.operations import Attention, Elementwise, Gemm
from simulator.program.partition import Layout, Partition
from simulator.program.recorder import Partial, Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, Schedule, detail, split_sequence
from simulator.schedules.heads import check_heads, gather_heads, scatter_heads
from traces.errors import InputError

LAST_QUERIES = 64
TILE = 64
VERTICAL, SLASH = 875, 2129
"""Mean columns and diagonals of a head in the released configuration for Llama-3.1-8B."""


@dataclass(frozen=True)
class MInference(Schedule):
    """Vertical-slash sparse attention.

    Parameters
    ----------
    vertical, slash : key columns and diagonals of each head; 875 and 2129, or as many as there are.
    sink, local : first columns and nearest diagonals that are always kept.
    """

    vertical: int | None = None
    slash: int | None = None
    sink: int = detail(30)
    local: int = detail(100)

    name: ClassVar[str] = "minference"
    exact: ClassVar[bool] = False
    source: ClassVar[str] = "Jiang et al. 2024, arXiv 2407.02490, section 3.2; github microsoft/MInference"

    def resolve(self, setup: Setup) -> Self:
        """Fill in columns and diagonals."""
        tokens = setup.workload.seq_len
        return replace(
            self, vertical=self.vertical or min(VERTICAL, tokens), slash=self.slash or min(SLASH, tokens)
        )  # fmt: skip

    def check(self, setup: Setup) -> None:
        """Refuse what the algorithm is not defined for, and heads that the ranks do not divide."""
        if str(setup.workload.mask) != "causal":
            raise InputError(f"minference is defined for the causal mask, not {setup.workload.mask}")
        check_heads(setup, setup.n_ranks)
        chosen = self.resolve(setup)
        for option in ("vertical", "slash"):
            if not 0 < getattr(chosen, option) <= setup.workload.seq_len:
                raise InputError(f"minference: {option} is not a number of keys", got=getattr(chosen, option),
                                 expected=f"1 to {setup.workload.seq_len}")  # fmt: skip
        if self.local < 1:
            raise InputError(
                "minference: local is too small", got=self.local, expected="at least 1: every query's own key"
            )
        self.input_partition(setup)

    def input_partition(self, setup: Setup) -> Partition:
        """Contiguous, as Ulysses."""
        return split_sequence("contiguous", setup)

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """Scatter heads, choose columns and diagonals, attend to them, gather heads."""
        ranks, whole = r.setup.all_ranks(), Layout.whole(r.setup.workload.seq_len, r.setup.n_ranks)
        q_heads, k_heads, v_heads = [scatter_heads(r, tensor, whole, ranks) for tensor in (q, k, v)]
        columns, diagonals = self._choose(r, q_heads, k_heads)
        o_heads, lse = r.finish(self._attend(r, (q_heads, k_heads, v_heads, columns, diagonals)))
        return gather_heads(r, o_heads, "o", q.layout, r.setup.workload.heads, ranks), lse

    def _choose(self, r: Recorder, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Indices [B, H, v] of columns and [B, H, s] of diagonals."""
        b, w, chosen = q.buffer, r.setup.workload, self.resolve(r.setup)
        last = min(LAST_QUERIES, w.seq_len)
        sums = [r.tensor(name, None, b.heads, 1, "fp32", tokens=w.seq_len) for name in ("column sums", "diagonal sums")]
        work = Gemm(last * b.batch * b.heads, ((w.seq_len, b.dim),), b.dtype)
        r.emit("vertical_slash_scores", work, (q, k), sums, last=last)
        assert chosen.vertical is not None and chosen.slash is not None
        columns = r.tensor("columns", None, b.heads, 1, "int32", tokens=chosen.vertical)
        diagonals = r.tensor("diagonals", None, b.heads, 1, "int32", tokens=chosen.slash)
        read, written = (sum([each.buffer.bytes for each in many]) for many in (sums, (columns, diagonals)))
        r.emit("vertical_slash_select", Elementwise("reduce", read, written), sums, (columns, diagonals),
               sink=self.sink, local=self.local)  # fmt: skip
        return columns, diagonals

    def _attend(self, r: Recorder, reads: tuple[Tensor, ...]) -> Partial:
        q, k, v, columns, diagonals = reads
        w, b = r.setup.workload, q.buffer
        keys = int(columns.buffer.tokens) + -(-int(diagonals.buffer.tokens) // TILE) * TILE
        window, whole = SlidingWindow(min(keys, w.seq_len), causal=True), [TokenRange(0, w.seq_len)]
        lowering = column_of([lower(window, whole, whole, w.seq_len)] * r.setup.n_ranks)
        o = r.tensor("o", b.layout, b.heads, v.buffer.dim, b.dtype)
        lse = r.tensor("lse", b.layout, b.heads, 1, "fp32")
        work = Attention(lowering, "forward", b.batch, b.heads, k.buffer.heads, b.dim, v.buffer.dim, b.dtype)
        r.emit("attention_sparse", work, reads, (o, lse), lowering=lowering)
        return Partial(o, lse, lowering)

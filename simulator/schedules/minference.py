"""MInference: each head attends to few key columns ("vertical") and diagonals ("slash"), chosen from its last queries.

For every head: the last 64 queries attend to all keys; the weights are summed by column and by diagonal q - k; the v
columns and s diagonals with the largest sums are kept, always among them the first 30 columns (the sink) and the
nearest 100 diagonals. All other pairs are left out.

The kernel computes tiles of 64 x 64: a diagonal costs a band of tiles. Diagonals lie scattered, so that s of them fall
into n (1 - (1 - 1/n)^s) of the n = S/64 bands, and the share of the causal pairs that is computed is

    f = f_s + (1 - f_s) 2 v / S,    f_s = 1 - (1 - 1/n)^s,      at most 1
    index  2 64 S D FLOP per head and top-k;                    attention  4 D f S (S + 1) / 2 FLOP per head

Diagonals and columns are spread over all rows, so that the piece of each 64 queries visits that share of the tiles that
it would visit under the causal mask: so it is priced, by the Triton kernel's curve, of which only the tiles on the main
diagonal are masked. Pairs are counted as those of the causal window of as many. It is approximate (exact under its own
mask) and for inference only. On several GPUs heads are scattered as in Ulysses; a rank's heads choose for themselves.

The released configuration for Llama-3.1-8B gives its 1024 heads six pairs (v, s): (100, 800) x 297, (1000, 6096) x
279, (30, 800) x 175, (3500, 100) x 149, (500, 700) x 120, (100, 750) x 4. The defaults stand for all of them: the
mean v, and the s that computes their mean share f_s of 128K tokens, 0.45. APB's paper measured 281 ms for 664 ms of
dense attention. Source: Jiang et al. 2024 (arXiv 2407.02490) section 3.2; github microsoft/MInference
(vertical_and_slash_kernel).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from cost_models.masks import CausalMask, SlidingWindow, TokenRange, lower
from simulator.program.lowered import column_of
from simulator.program.operations import Attention, Elementwise, Gemm, Sparse
from simulator.program.partition import Layout, Partition
from simulator.program.recorder import Partial, Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, Schedule, detail, split_sequence
from simulator.schedules.heads import check_heads, gather_heads, scatter_heads
from traces.errors import InputError

LAST_QUERIES = 64
TILE = 64
SCORE_BYTES = 26
"""Read and written of each score of the last queries: by the product (bf16), softmax to fp32, the sum of columns, and
of diagonals, for which they are copied with padding."""
KERNEL = "triton"
"""What MInference's kernel is written in."""
VERTICAL, SLASH = 875, 1220
"""Stand for the released configuration for Llama-3.1-8B (see above)."""


@dataclass(frozen=True)
class MInference(Schedule):
    """Vertical-slash sparse attention.

    Parameters
    ----------
    vertical, slash : key columns and diagonals of each head; 875 and 1220, or as many as there are.
    sink, local : first columns and nearest diagonals that are always kept.
    """

    vertical: int | None = None
    slash: int | None = None
    sink: int = detail(30)
    local: int = detail(100)

    name: ClassVar[str] = "minference"
    exact: ClassVar[bool] = False
    source: ClassVar[str] = "Jiang et al. 2024, arXiv 2407.02490, section 3.2; github microsoft/MInference"
    whole_prompt: ClassVar[str] = "it chooses columns and diagonals by the last queries of the prompt"

    def resolve(self, setup: Setup) -> Self:
        """Fill in columns and diagonals."""
        tokens = setup.workload.seq_len
        return replace(
            self, vertical=self.vertical or min(VERTICAL, tokens), slash=self.slash or min(SLASH, tokens)
        )  # fmt: skip

    def check(self, setup: Setup) -> None:
        """Refuse what the algorithm is not defined for, and heads that the ranks do not divide."""
        if str(setup.workload.mask) != "causal":
            raise InputError(f"minference is defined for the causal mask, not {setup.workload.mask.brief}")
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
        read += SCORE_BYTES * last * w.seq_len * b.heads * b.batch
        r.emit("vertical_slash_select", Elementwise("reduce", read, written), sums, (columns, diagonals),
               sink=self.sink, local=self.local)  # fmt: skip
        return columns, diagonals

    def _attend(self, r: Recorder, reads: tuple[Tensor, ...]) -> Partial:
        q, k, v, columns, diagonals = reads
        w, b = r.setup.workload, q.buffer
        share = computed_share(w.seq_len, int(columns.buffer.tokens), int(diagonals.buffer.tokens))
        window, whole = equivalent_window(w.seq_len, share), [TokenRange(0, w.seq_len)]
        lowering = column_of([lower(window, whole, whole, w.seq_len)] * r.setup.n_ranks)
        causal = column_of([lower(CausalMask(), whole, whole, w.seq_len)] * r.setup.n_ranks)
        o = r.tensor("o", b.layout, b.heads, v.buffer.dim, b.dtype)
        lse = r.tensor("lse", b.layout, b.heads, 1, "fp32")
        work = Attention(lowering, "forward", b.batch, b.heads, k.buffer.heads, b.dim, v.buffer.dim, b.dtype,
                         sparse=Sparse(KERNEL, causal, share))  # fmt: skip
        r.emit("attention_sparse", work, reads, (o, lse), lowering=lowering)
        return Partial(o, lse, lowering)


def computed_share(seq_len: int, vertical: int, slash: int) -> float:
    """Share of the causal pairs in the tiles that the kernel computes.

    >>> heads = {800: 297 + 175, 6096: 279, 100: 149, 700: 120, 750: 4}
    >>> round(sum(computed_share(2**17, 0, slash) * count for slash, count in heads.items()) / 1024, 2)
    0.45
    >>> round(computed_share(2**17, 0, 1220), 2)
    0.45
    """
    bands = max(1, seq_len // TILE)
    diagonal = 1 - (1 - 1 / bands) ** slash
    return min(1.0, diagonal + (1 - diagonal) * 2 * vertical / seq_len)


def equivalent_window(seq_len: int, share: float) -> SlidingWindow:
    """The causal window with so large a share of the causal pairs: S w - w (w - 1) / 2 of S (S + 1) / 2.

    >>> equivalent_window(1024, 0.5).area(1024) / (1024 * 1025 / 2)
    0.4999047256097561
    """
    side = seq_len + 0.5
    window = side - (side**2 - share * seq_len * (seq_len + 1)) ** 0.5
    return SlidingWindow(min(seq_len, max(1, round(window))), causal=True)

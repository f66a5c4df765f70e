"""DeepSpeed-Ulysses: all-to-alls turn sequence shards into head shards, so that every rank attends whole sequences.

    forward    all-to-all of Q, K, V and of O,          (P-1)/P (2 A_q + 2 A_kv) e bytes   A = B (S/P) heads D elements
    backward   all-to-all of dO and of dQ, dK, dV,      the same

Every rank then holds H/P query heads and max(1, K/P) KV heads of the whole sequence. With P > K each KV head is sent to
P/K ranks (A_kv = B (S/P) P D), and their gradients are summed after the way back. The LSE stays head-sharded. Any mask
is balanced, and all communication is exposed.
Source: Jacobs et al. 2023 (arXiv 2309.14509) section 3; KV replication: USP (arXiv 2405.07719) section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from simulator.program.partition import Layout, Partition
from simulator.program.recorder import Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, Schedule, split_sequence
from simulator.schedules.chunk import Chunk
from simulator.schedules.heads import check_heads, gather_heads, scatter_heads, with_heads


@dataclass(frozen=True)
class Ulysses(Schedule):
    """DeepSpeed-Ulysses."""

    name: ClassVar[str] = "ulysses"
    source: ClassVar[str] = "Jacobs et al. 2023, arXiv 2309.14509, section 3"

    def resolve(self, setup: Setup) -> Self:
        """There are no options."""
        return self

    def check(self, setup: Setup) -> None:
        """Refuse heads that cannot be divided among the ranks."""
        check_heads(setup, setup.n_ranks)
        self.input_partition(setup)

    def input_partition(self, setup: Setup) -> Partition:
        """Contiguous: slices then arrive in the order of the sequence."""
        return split_sequence("contiguous", setup)

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """Scatter heads, attend, gather heads."""
        ranks, whole = r.setup.all_ranks(), Layout.whole(r.setup.workload.seq_len, r.setup.n_ranks)
        q_heads, k_heads, v_heads = [scatter_heads(r, tensor, whole, ranks) for tensor in (q, k, v)]
        o_heads, lse = r.finish(r.merge(None, r.attention(q_heads, k_heads, v_heads)))
        o = gather_heads(r, o_heads, "o", q.layout, r.setup.workload.heads, ranks)
        return o, lse, o_heads, q_heads, k_heads, v_heads

    def cached_layout(self, chunk: Chunk, heads: int) -> Layout:
        """All tokens, of own heads."""
        return with_heads(chunk.together(), chunk.setup.all_ranks(), heads)

    def cached_rows(self, r: Recorder, tensor: Tensor, chunk: Chunk) -> Tensor:
        """Scattered by head."""
        return scatter_heads(r, tensor, chunk.together(), r.setup.all_ranks())

    def attend_cached(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, chunk: Chunk) -> Tensor:
        """Scatter the queries' heads, attend, gather heads."""
        q_heads = scatter_heads(r, q, chunk.together(), r.setup.all_ranks())
        o_heads, _ = r.finish(r.merge(None, r.attention(q_heads, k, v)))
        return gather_heads(r, o_heads, "o", q.layout, r.setup.workload.heads, r.setup.all_ranks())

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same way with gradients."""
        _, lse, o_heads, q_heads, k_heads, v_heads = saved
        ranks = r.setup.all_ranks()
        do_heads = scatter_heads(r, do, o_heads.layout, ranks)
        gradients = r.attention_backward(q_heads, k_heads, v_heads, do_heads, lse, o=o_heads)
        parts = [r.accumulate(None, (gradient,), r.setup.workload.dtype)[0] for gradient in gradients]
        dq, dk, dv = [
            gather_heads(r, part, f"d{tensor.buffer.name}", q.layout, tensor.buffer.heads, ranks)
            for part, tensor in zip(parts, (q, k, v), strict=True)
        ]
        return dq, dk, dv

"""DeepSpeed-Ulysses: all-to-alls turn sequence shards into head shards, so that every rank attends whole sequences.

    forward    all-to-all of Q, K, V and of O,          (P-1)/P (2 A_q + 2 A_kv) e bytes   A = B (S/P) heads D elements
    backward   all-to-all of dO and of dQ, dK, dV,      the same

Every rank then holds H/P query heads and max(1, K/P) KV heads of the whole sequence. With P > K each KV head is sent to
P/K ranks (A_kv = B (S/P) P D), and their gradients are summed after the way back. The LSE stays head-sharded. An
all-to-all sends equal slices of memory: `pack` puts heads outermost before, `unpack` puts them back after.
Source: Jacobs et al. 2023 (arXiv 2309.14509) section 3; KV replication: USP (arXiv 2405.07719) section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from simulator.program.partition import Layout, Partition, build_partition
from simulator.program.recorder import Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, Schedule
from traces.errors import InputError


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
        heads, kv_heads, ranks = setup.workload.heads, setup.workload.kv_heads, setup.n_ranks
        if heads % ranks:
            raise InputError(f"{heads} heads are not divisible by {ranks} ranks")
        if kv_heads % ranks and ranks % kv_heads:
            raise InputError(f"{kv_heads} KV heads neither divide {ranks} ranks nor are divisible by them")
        self.input_partition(setup)

    def input_partition(self, setup: Setup) -> Partition:
        """Contiguous: slices then arrive in the order of the sequence."""
        return build_partition("contiguous", setup.workload.seq_len, setup.n_ranks)

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """Scatter heads, attend, gather heads."""
        home = q.layout
        whole = Layout.home(build_partition("whole", r.setup.workload.seq_len, r.setup.n_ranks))
        q_heads, k_heads, v_heads = [scatter_heads(r, tensor, whole) for tensor in (q, k, v)]
        o_heads, lse = r.finish(r.merge(None, r.attention(q_heads, k_heads, v_heads)))
        o = gather_heads(r, o_heads, "o", home, r.setup.workload.heads)
        return o, lse, o_heads, q_heads, k_heads, v_heads

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same way with gradients."""
        _, lse, o_heads, q_heads, k_heads, v_heads = saved
        do_heads = scatter_heads(r, do, o_heads.layout)
        gradients = r.attention_backward(q_heads, k_heads, v_heads, do_heads, lse, o=o_heads)
        parts = [r.accumulate(None, (gradient,), r.setup.workload.dtype)[0] for gradient in gradients]
        dq, dk, dv = [
            gather_heads(r, part, f"d{tensor.buffer.name}", q.layout, tensor.buffer.heads)
            for part, tensor in zip(parts, (q, k, v), strict=True)
        ]
        return dq, dk, dv


def scatter_heads(r: Recorder, tensor: Tensor, whole: Layout) -> Tensor:
    """From all heads of own tokens to own heads of all tokens; heads are repeated where there are fewer than ranks."""
    b, ranks, batch = tensor.buffer, r.setup.n_ranks, r.setup.workload.batch
    if ranks == 1:
        return tensor
    own = max(b.heads // ranks, 1)
    packed = r.tensor(f"{b.name} by head", None, own, b.dim, b.dtype, tokens=b.tokens, batch=ranks * batch)
    r.copy("pack", (tensor,), packed, "pack", axis="heads")
    if batch == 1:  # slices of one sequence arrive in its order
        return r.all_to_all(packed, r.tensor(b.name, whole, own, b.dim, b.dtype))
    received = r.all_to_all(packed, r.like(packed, b.name))
    return r.copy("unpack", (received,), r.tensor(b.name, whole, own, b.dim, b.dtype), "pack", axis="tokens")


def gather_heads(r: Recorder, tensor: Tensor, name: str, home: Layout, heads: int) -> Tensor:
    """From own heads of all tokens to all heads of own tokens; repeated heads are summed."""
    b, ranks, batch = tensor.buffer, r.setup.n_ranks, r.setup.workload.batch
    if ranks == 1:
        return tensor
    result = r.tensor(name, home, heads, b.dim, b.dtype)
    packed = tensor
    if batch > 1:
        packed = r.tensor(name, None, b.heads, b.dim, b.dtype, tokens=home.tokens, batch=ranks * batch)
        r.copy("pack", (tensor,), packed, "pack", axis="tokens")
    received = r.tensor(f"{name} by head", None, b.heads, b.dim, b.dtype, tokens=home.tokens, batch=ranks * batch)
    r.all_to_all(packed, received)
    kind = "unpack" if heads == b.heads * ranks else "reduce_replicas"
    return r.copy(kind, (received,), result, "pack", axis="heads")

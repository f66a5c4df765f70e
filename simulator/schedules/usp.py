"""USP: Ulysses in groups of Na ranks, ring attention between Np = P/Na groups.

    forward    all-to-all of Q, K, V and of O in groups,     (Na-1)/Na (2 A_q + 2 A_kv') e bytes
               Np - 1 hops of K, V,                          2 A_kv' e bytes each
    backward   the all-to-alls, and the ring's backward with Np for P

A = B (S/P) heads D elements, A_kv' with max(K, Na) heads: a hop is as large as the flat ring's, of Na times the tokens
and 1/Na of the heads. The sequence is split for the ring, and each part then cut in Na, so that a head group holds a
part in order. All-to-alls are exposed, hops hidden behind kernels.
Source: Fang and Zhao 2024 (arXiv 2405.07719) section 3, and github feifeibear/long-context-attention (use_ulysses_low:
head groups on neighbouring ranks).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from simulator.program.partition import Layout, Partition
from simulator.program.partitioners import PARTITIONERS
from simulator.program.recorder import Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, Schedule, check_choice, default_partition, split_sequence
from simulator.schedules.chunk import Chunk
from simulator.schedules.heads import check_heads, gather_heads, scatter_heads, with_heads
from simulator.schedules.mesh import Mesh, build_mesh
from simulator.schedules.ring import Ring, circulate, circulate_back
from traces.errors import InputError


@dataclass(frozen=True)
class Usp(Schedule):
    """Unified sequence parallelism.

    Parameters
    ----------
    ulysses, ring : degrees Na and Np, whose product is the number of ranks; default the largest Na that fits a node,
        the heads and the KV heads.
    placement : head-first (head groups on neighbouring ranks) or context-first (rings on neighbouring ranks).
    partition : of the ring; zigzag for causal masks, else contiguous.
    grad : dtype in which dK and dV are accumulated and sent, fp32 or bf16.
    """

    ulysses: int | None = None
    ring: int | None = None
    placement: str = "head-first"
    partition: str | None = None
    grad: str = "fp32"

    name: ClassVar[str] = "usp"
    source: ClassVar[str] = "Fang and Zhao 2024, arXiv 2405.07719, section 3; github feifeibear/long-context-attention"

    def resolve(self, setup: Setup) -> Self:
        """Fill in degrees and partition."""
        ulysses, ring = choose_degrees(setup, self.ulysses, self.ring)
        partition = self.partition or default_partition(setup.workload.mask)
        return replace(self, ulysses=ulysses, ring=ring, partition=partition)

    def check(self, setup: Setup) -> None:
        """Refuse degrees that do not fit the ranks or the heads, and unknown options."""
        check_choice(self, "placement", ("head-first", "context-first"))
        check_choice(self, "partition", PARTITIONERS)
        check_choice(self, "grad", ("fp32", "bf16"))
        ulysses, ring = choose_degrees(setup, self.ulysses, self.ring)
        check_degrees(setup, {"ulysses": ulysses, "ring": ring})
        check_heads(setup, ulysses)
        self.input_partition(setup)

    def _mesh(self, setup: Setup) -> Mesh:
        ulysses, ring = choose_degrees(setup, self.ulysses, self.ring)
        return build_mesh(setup, ulysses, ring, self.placement)

    def _context(self, setup: Setup) -> Partition:
        mesh = self._mesh(setup)
        return split_sequence(self.partition, setup, mesh.context, multiple=mesh.heads.size)

    def input_partition(self, setup: Setup) -> Partition:
        """The ring's parts, each cut among a head group."""
        return self._mesh(setup).input_partition(self._context(setup))

    def cached_layout(self, chunk: Chunk, heads: int) -> Layout:
        """Own heads of what the head group holds together."""
        return cached_layout_2d(self._mesh(chunk.setup), self._context(chunk.setup), chunk, heads)

    def cached_rows(self, r: Recorder, tensor: Tensor, chunk: Chunk) -> Tensor:
        """Scattered by head."""
        mesh = self._mesh(r.setup)
        return scatter_heads(r, tensor, mesh.together(chunk.shifted(self._context(chunk.setup))), mesh.heads)

    def attend_cached(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, chunk: Chunk) -> Tensor:
        """Scatter the queries' heads, go round the ring, gather heads."""
        context = chunk.shifted(self._context(chunk.setup))
        return attend_cached_2d(r, self._mesh(r.setup), context, q, k, v, Ring(grad=self.grad))

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """Scatter heads, go round the ring, gather heads."""
        return attend_2d(r, self._mesh(r.setup), self._context(r.setup), q, k, v, Ring(grad=self.grad))

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same way with gradients."""
        return attend_2d_back(r, self._mesh(r.setup), (q, k, v), saved, do, Ring(grad=self.grad))


def attend_2d(
    r: Recorder, mesh: Mesh, context: Partition, q: Tensor, k: Tensor, v: Tensor, how: Ring
) -> Saved:  # fmt: skip
    """Heads scattered in their groups, context circulated: O, LSE, and for backward O, Q, K, V by head."""
    together = mesh.together(context)
    q_heads, k_heads, v_heads = [scatter_heads(r, tensor, together, mesh.heads) for tensor in (q, k, v)]
    o_heads, lse = circulate(r, (mesh.inner, mesh.outer), q_heads, k_heads, v_heads, how)
    o = gather_heads(r, o_heads, "o", q.layout, r.setup.workload.heads, mesh.heads)
    return o, lse, o_heads, q_heads, k_heads, v_heads


def cached_layout_2d(mesh: Mesh, context: Partition, chunk: Chunk, heads: int) -> Layout:
    """What each rank keeps of a chunk's keys: own heads of its head group's part."""
    return with_heads(mesh.together(chunk.shifted(context)), mesh.heads, heads)


def attend_cached_2d(
    r: Recorder, mesh: Mesh, context: Partition, q: Tensor, k: Tensor, v: Tensor, how: Ring
) -> Tensor:  # fmt: skip
    """O of a chunk's queries; keys and values are scattered by head already."""
    q_heads = scatter_heads(r, q, mesh.together(context), mesh.heads)
    o_heads, _ = circulate(r, (mesh.inner, mesh.outer), q_heads, k, v, how)
    return gather_heads(r, o_heads, "o", q.layout, r.setup.workload.heads, mesh.heads)


def attend_2d_back(
    r: Recorder, mesh: Mesh, qkv: tuple[Tensor, Tensor, Tensor], saved: Saved, do: Tensor, how: Ring,
    later_grad: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(dQ, dK, dV) of `attend_2d`."""
    _, lse, o_heads, q, k, v = saved
    do_heads = scatter_heads(r, do, o_heads.layout, mesh.heads)
    parts = circulate_back(r, (mesh.inner, mesh.outer), (q, k, v), (o_heads, lse), do_heads, how, later_grad)
    dq, dk, dv = [
        gather_heads(r, part, f"d{tensor.buffer.name}", tensor.layout, tensor.buffer.heads, mesh.heads)
        for part, tensor in zip(parts, qkv, strict=True)
    ]
    return dq, dk, dv


def choose_degrees(setup: Setup, heads: int | None, context: int | None) -> tuple[int, int]:
    """Degrees of heads and context; where neither is given, the largest of heads that a node and the heads allow."""
    ranks = setup.n_ranks
    if heads is None and context is None:
        heads = max(degree for degree in range(1, setup.ranks_per_node + 1) if _fits(setup, degree))
    if heads is None:
        heads = max(1, ranks // (context or 1))
    return heads, ranks // heads if context is None else context


def _fits(setup: Setup, degree: int) -> bool:
    w = setup.workload
    return setup.n_ranks % degree == 0 and w.heads % degree == 0 and w.kv_heads % degree == 0


def check_degrees(setup: Setup, degrees: dict[str, int]) -> None:
    """Refuse degrees whose product is not the number of ranks."""
    product = 1
    for degree in degrees.values():
        product *= degree
    if product != setup.n_ranks:
        names = " x ".join(f"{name} {degree}" for name, degree in degrees.items())
        raise InputError(f"{names} is not {setup.n_ranks} ranks", remedy="give one of the two")

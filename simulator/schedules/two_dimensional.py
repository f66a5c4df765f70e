"""Attention split twice, heads over Na ranks and context over Np: what `usp`, `loongtrain` and yunchang have in common.

Heads are scattered in their groups, the context circulates between them, heads are gathered. A prompt in chunks keeps
keys and values by head: they are scattered once, when they come.
"""

from __future__ import annotations

from abc import abstractmethod

from simulator.program.partition import Layout, Partition
from simulator.program.recorder import Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, Schedule, split_sequence
from simulator.schedules.chunk import Chunk
from simulator.schedules.heads import gather_heads, scatter_heads, with_heads
from simulator.schedules.mesh import Mesh
from simulator.schedules.ring import Ring, circulate, circulate_back
from traces.errors import InputError


class TwoDimensional(Schedule):
    """A schedule on a mesh of heads and context, whose option ``partition`` is that of the context."""

    partition: str | None

    @abstractmethod
    def _mesh(self, setup: Setup) -> Mesh:
        """Which ranks share heads, and which a ring."""

    @property
    def _how(self) -> Ring:
        """How the context circulates."""
        return Ring()

    def _scatter(self, r: Recorder, tensor: Tensor, together: Layout, mesh: Mesh) -> Tensor:
        """Own heads of what the head group holds together."""
        return scatter_heads(r, tensor, together, mesh.heads)

    def _circulate(self, r: Recorder, mesh: Mesh, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """(O, LSE) of the keys of all parts of the context."""
        return circulate(r, (mesh.inner, mesh.outer), q, k, v, self._how)

    def _circulate_back(
        self, r: Recorder, mesh: Mesh, qkv: tuple[Tensor, Tensor, Tensor], saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dQ, dK, dV) likewise."""
        return circulate_back(r, (mesh.inner, mesh.outer), qkv, saved, do, self._how, self._later_grad(r.setup))

    def _later_grad(self, setup: Setup) -> str | None:
        """Dtype of dK and dV in all windows but the first; None where it is the same."""
        return None

    def _gather(self, r: Recorder, tensor: Tensor, name: str, home: Tensor, mesh: Mesh) -> Tensor:
        """What each rank of a head group has of its heads, as ``home`` is split by tokens."""
        return gather_heads(r, tensor, name, home.layout, home.buffer.heads, mesh.heads)

    def _context(self, setup: Setup) -> Partition:
        mesh = self._mesh(setup)
        return split_sequence(self.partition, setup, mesh.context, multiple=mesh.heads.size)

    def _together(self, chunk: Chunk) -> Layout:
        """A chunk's tokens as head groups hold them."""
        return self._mesh(chunk.setup).together(chunk.shifted(self._context(chunk.setup)))

    def input_partition(self, setup: Setup) -> Partition:
        """The context's parts, each cut among a head group."""
        return self._mesh(setup).input_partition(self._context(setup))

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """Scatter heads, circulate, gather heads: O, LSE, and for backward O, Q, K, V by head."""
        mesh = self._mesh(r.setup)
        together = mesh.together(self._context(r.setup))
        q_heads, k_heads, v_heads = [self._scatter(r, tensor, together, mesh) for tensor in (q, k, v)]
        o_heads, lse = self._circulate(r, mesh, q_heads, k_heads, v_heads)
        o = self._gather(r, o_heads, "o", q, mesh)
        return o, lse, o_heads, q_heads, k_heads, v_heads

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same way with gradients."""
        mesh, (_, lse, o_heads, *by_head) = self._mesh(r.setup), saved
        do_heads = self._scatter(r, do, o_heads.layout, mesh)
        parts = self._circulate_back(r, mesh, (by_head[0], by_head[1], by_head[2]), (o_heads, lse), do_heads)
        dq, dk, dv = [
            self._gather(r, part, f"d{tensor.buffer.name}", tensor, mesh)
            for part, tensor in zip(parts, (q, k, v), strict=True)
        ]
        return dq, dk, dv

    def cached_layout(self, chunk: Chunk, heads: int) -> Layout:
        """Own heads of what the head group holds together."""
        return with_heads(self._together(chunk), self._mesh(chunk.setup).heads, heads)

    def cached_rows(self, r: Recorder, tensor: Tensor, chunk: Chunk) -> Tensor:
        """Scattered by head."""
        return scatter_heads(r, tensor, self._together(chunk), self._mesh(r.setup).heads)

    def attend_cached(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, chunk: Chunk) -> Tensor:
        """Scatter the queries' heads, circulate, gather heads."""
        mesh = self._mesh(r.setup)
        q_heads = scatter_heads(r, q, self._together(chunk), mesh.heads)
        o_heads, _ = circulate(r, (mesh.inner, mesh.outer), q_heads, k, v, self._how)
        return self._gather(r, o_heads, "o", q, mesh)


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

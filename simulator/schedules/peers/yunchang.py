"""yunchang 0.6.4 (USP): all-to-alls over head groups around ring-flash-attn's ring.

Q, K and V are exchanged one after the other. The way back transposes before and after the all-to-all, also for one
sequence, where ours needs no copy before; K and V heads are not repeated, so the degree of Ulysses must divide them.
Source: github feifeibear/long-context-attention 0.6.4, yunchang/comm/all_to_all.py (`all_to_all_4D`),
yunchang/hybrid/attn_layer.py (`LongContextAttention`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from simulator.program.partition import Partition
from simulator.program.recorder import Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, Schedule, default_partition, split_sequence
from simulator.schedules.heads import check_heads, gather_heads, scatter_heads
from simulator.schedules.mesh import Mesh, build_mesh
from simulator.schedules.ring import Ring, circulate, circulate_back
from simulator.schedules.two_dimensional import check_degrees, choose_degrees
from traces.errors import InputError


@dataclass(frozen=True)
class YunChang(Schedule):
    """yunchang's LongContextAttention.

    Parameters
    ----------
    ulysses, ring : degrees, whose product is the number of ranks; default the largest of Ulysses that the heads allow.
    """

    ulysses: int | None = None
    ring: int | None = None

    name: ClassVar[str] = "yunchang"
    source: ClassVar[str] = "github feifeibear/long-context-attention 0.6.4"
    whole_prompt: ClassVar[str] = "its code knows no keys kept from earlier chunks"

    def resolve(self, setup: Setup) -> Self:
        """Fill in the degrees."""
        ulysses, ring = choose_degrees(setup, self.ulysses, self.ring)
        return replace(self, ulysses=ulysses, ring=ring)

    def check(self, setup: Setup) -> None:
        """Refuse masks and heads that the code does not take."""
        ulysses, ring = choose_degrees(setup, self.ulysses, self.ring)
        check_degrees(setup, {"ulysses": ulysses, "ring": ring})
        check_heads(setup, ulysses)
        mask, kv_heads = str(setup.workload.mask), setup.workload.kv_heads
        if mask not in ("causal", "full"):
            raise InputError(f"{self.name} takes other masks", got=mask, expected="causal or full")
        if kv_heads % ulysses:
            raise InputError(f"yunchang: {kv_heads} KV heads are not divisible by ulysses {ulysses}")
        self.input_partition(setup)

    def _mesh(self, setup: Setup) -> Mesh:
        return build_mesh(setup, *choose_degrees(setup, self.ulysses, self.ring), "head-first")

    def _context(self, setup: Setup) -> Partition:
        mesh, name = self._mesh(setup), default_partition(setup.workload.mask)
        return split_sequence(name, setup, mesh.context, multiple=mesh.heads.size)

    def input_partition(self, setup: Setup) -> Partition:
        """The ring's parts (zigzag for the causal mask), each cut among a head group."""
        return self._mesh(setup).input_partition(self._context(setup))

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """Scatter heads, go round the ring, gather heads."""
        mesh = self._mesh(r.setup)
        together = mesh.together(self._context(r.setup))
        q_heads, k_heads, v_heads = [scatter_heads(r, tensor, together, mesh.heads) for tensor in (q, k, v)]
        o_heads, lse = circulate(r, (mesh.inner, mesh.outer), q_heads, k_heads, v_heads, Ring())
        o = _gather(r, o_heads, "o", q, r.setup.workload.heads, mesh)
        return o, lse, o_heads, q_heads, k_heads, v_heads

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same way with gradients."""
        mesh, (_, lse, o_heads, *attended) = self._mesh(r.setup), saved
        do_heads = scatter_heads(r, do, o_heads.layout, mesh.heads)
        q_heads, k_heads, v_heads = attended
        parts = circulate_back(
            r, (mesh.inner, mesh.outer), (q_heads, k_heads, v_heads), (o_heads, lse), do_heads, Ring()
        )
        dq, dk, dv = [
            _gather(r, part, f"d{tensor.buffer.name}", tensor, tensor.buffer.heads, mesh)
            for part, tensor in zip(parts, (q, k, v), strict=True)
        ]
        return dq, dk, dv


def _gather(r: Recorder, tensor: Tensor, name: str, home: Tensor, heads: int, mesh: Mesh) -> Tensor:
    """Transposed before the all-to-all as well."""
    if mesh.heads.size == 1:
        return tensor
    if r.setup.workload.batch == 1:
        tensor = r.copy("cast", (tensor,), r.like(tensor, f"{name}, transposed"), "pack")
    return gather_heads(r, tensor, name, home.layout, heads, mesh.heads)

"""yunchang 0.6.4 (USP): all-to-alls over head groups around ring-flash-attn's ring.

Q, K and V are exchanged one after the other. The way back transposes before and after the all-to-all, also for one
sequence, where ours needs no copy before, and in a group of one; K and V heads are not repeated, so the degree of
Ulysses must divide them. A ring of one converts to fp32 and back, too, and sends to itself.
Source: github feifeibear/long-context-attention 0.6.4, yunchang/comm/all_to_all.py (`all_to_all_4D`),
yunchang/hybrid/attn_layer.py (`LongContextAttention`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from simulator.program.partition import Layout, Partition
from simulator.program.recorder import Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, default_partition, detail, split_sequence
from simulator.schedules.heads import check_heads, gather_heads, scatter_heads
from simulator.schedules.mesh import Mesh, build_mesh
from simulator.schedules.peers.ring_flash_attn import backward_on, forward_on
from simulator.schedules.peers.unfused import copy_again, everywhere
from simulator.schedules.two_dimensional import TwoDimensional, check_degrees, choose_degrees
from traces.errors import InputError


@dataclass(frozen=True)
class YunChang(TwoDimensional):
    """yunchang's LongContextAttention.

    Parameters
    ----------
    ulysses, ring : degrees, whose product is the number of ranks; default the largest of Ulysses that the heads allow.
    stand_in : as of ring-flash-attn.
    """

    ulysses: int | None = None
    ring: int | None = None
    stand_in: bool = detail(False)

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

    def _scatter(self, r: Recorder, tensor: Tensor, together: Layout, mesh: Mesh) -> Tensor:
        """A transposed copy before the all-to-all; with several sequences one after it."""
        if mesh.heads.size == 1:
            copy_again(r, tensor, everywhere(r, r.setup.workload.batch > 1), "strided", 2.0)
        return scatter_heads(r, tensor, together, mesh.heads, "strided")

    def _gather(self, r: Recorder, tensor: Tensor, name: str, home: Tensor, mesh: Mesh) -> Tensor:
        """Transposed before the all-to-all as well, also in a group of one."""
        if mesh.heads.size == 1:
            copy_again(r, tensor, everywhere(r), "strided", 2.0)
            return tensor
        if r.setup.workload.batch == 1:
            tensor = r.copy("cast", (tensor,), r.like(tensor, f"{name}, transposed"), "strided")
        return gather_heads(r, tensor, name, home.layout, home.buffer.heads, mesh.heads, "strided")

    def _circulate(self, r: Recorder, mesh: Mesh, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """By ring-flash-attn's functions, one ring."""
        variant = "zigzag" if str(r.setup.workload.mask) == "causal" else "ring"
        return forward_on(r, mesh.inner, variant, q, k, v)

    def _circulate_back(
        self, r: Recorder, mesh: Mesh, qkv: tuple[Tensor, Tensor, Tensor], saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Likewise."""
        return backward_on(r, mesh.inner, qkv, saved, do, stand_in=self.stand_in)

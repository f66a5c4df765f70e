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

from simulator.program.partitioners import PARTITIONERS
from simulator.program.setup import Setup
from simulator.schedules.base import check_choice, default_partition, detail
from simulator.schedules.heads import check_heads
from simulator.schedules.mesh import Mesh, build_mesh
from simulator.schedules.ring import CIRCULATE, Ring
from simulator.schedules.two_dimensional import TwoDimensional, check_degrees, choose_degrees


@dataclass(frozen=True)
class Usp(TwoDimensional):
    """Unified sequence parallelism.

    Parameters
    ----------
    ulysses, ring : degrees Na and Np, whose product is the number of ranks; default the largest Na that fits a node,
        the heads and the KV heads.
    placement : head-first (head groups on neighbouring ranks) or context-first (rings on neighbouring ranks).
    partition : of the ring; zigzag for causal masks, else contiguous.
    grad : dtype in which dK and dV are accumulated and sent, fp32 or bf16.
    circulate : what goes round in the forward pass, as the ring's: kv or q.
    """

    ulysses: int | None = None
    ring: int | None = None
    placement: str = "head-first"
    partition: str | None = None
    grad: str = "fp32"
    circulate: str = detail("kv")

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
        check_choice(self, "circulate", CIRCULATE)
        ulysses, ring = choose_degrees(setup, self.ulysses, self.ring)
        check_degrees(setup, {"ulysses": ulysses, "ring": ring})
        check_heads(setup, ulysses)
        self.input_partition(setup)

    def _mesh(self, setup: Setup) -> Mesh:
        ulysses, ring = choose_degrees(setup, self.ulysses, self.ring)
        return build_mesh(setup, ulysses, ring, self.placement)

    @property
    def _how(self) -> Ring:
        return Ring(grad=self.grad, circulate=self.circulate)

"""LoongTrain's 2D attention: heads over Na ranks, context over Np, with a double ring for the context.

As USP, but of the Np - 1 hops of K, V only m - 1 are outer ones, m = Np/w windows of w ranks: an outer hop is posted at
the start of a window and has w kernels to hide behind. In backward dK, dV go round fully inside each window, w inner
hops and one outer, so Np + m hops; the last is exposed. Np = 8, w = 4: 8 + 2; Np = 12, w = 4: 12 + 3.

K and V are separate messages. The first window accumulates dK, dV in fp32, later ones in the model's
dtype (grad=mixed).
KV heads are repeated where Na > K, so that head parallelism may reach H. Windows: the default is LongCA-bench's, the
largest divisor of Np that is at most Np/m; MindSpeed measured windows of 2 best at Np = 16.
Source: Gu et al. 2024 (arXiv 2406.18485); github InternLM/InternEvo,
zigzag_ring_flash_attn_with_sliding_window.py; github NJUDeepEngine/LongCA-bench run_benchmark.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from simulator.program.partitioners import PARTITIONERS
from simulator.program.setup import Setup
from simulator.schedules.base import check_choice, default_partition, detail
from simulator.schedules.heads import check_heads
from simulator.schedules.mesh import PLACEMENTS, Mesh, build_mesh
from simulator.schedules.ring import Ring
from simulator.schedules.two_dimensional import TwoDimensional, check_degrees, choose_degrees
from traces.errors import InputError


@dataclass(frozen=True)
class LoongTrain(TwoDimensional):
    """2D attention with a double ring.

    Parameters
    ----------
    head, context : degrees Na and Np, whose product is the number of ranks; defaults as USP's.
    window : ranks w of an inner ring, a divisor of ``context``.
    placement : head-first, context-first, or interleaved (inner rings, then head groups, on neighbouring ranks).
    partition : of the context; zigzag for causal masks, else contiguous.
    grad : dtype of dK and dV on the way: mixed, fp32 or bf16.
    messages : K and V as two messages (separate) or one (fused).
    """

    head: int | None = None
    context: int | None = None
    window: int | None = None
    placement: str = "head-first"
    partition: str | None = None
    grad: str = "mixed"
    messages: str = detail("separate")

    name: ClassVar[str] = "loongtrain"
    source: ClassVar[str] = "Gu et al. 2024, arXiv 2406.18485; github InternLM/InternEvo, LongCA-bench"

    def resolve(self, setup: Setup) -> Self:
        """Fill in degrees, window and partition."""
        head, context = choose_degrees(setup, self.head, self.context)
        partition = self.partition or default_partition(setup.workload.mask)
        window = self.window or default_window(context)
        return replace(self, head=head, context=context, window=window, partition=partition)

    def check(self, setup: Setup) -> None:
        """Refuse degrees that do not fit the ranks, the heads or the window, and unknown options."""
        check_choice(self, "placement", PLACEMENTS)
        check_choice(self, "partition", PARTITIONERS)
        check_choice(self, "grad", ("mixed", "fp32", "bf16"))
        check_choice(self, "messages", ("separate", "fused"))
        head, context = choose_degrees(setup, self.head, self.context)
        check_degrees(setup, {"head": head, "context": context})
        window = self.window or default_window(context)
        if context % window:
            raise InputError(f"loongtrain: window {window} does not divide context {context}")
        check_heads(setup, head)
        self.input_partition(setup)

    def _mesh(self, setup: Setup) -> Mesh:
        head, context = choose_degrees(setup, self.head, self.context)
        return build_mesh(setup, head, self.window or default_window(context), self.placement)

    @property
    def _how(self) -> Ring:
        return Ring(grad="bf16" if self.grad == "bf16" else "fp32", messages=self.messages)

    def _later_grad(self, setup: Setup) -> str | None:
        return setup.workload.dtype if self.grad == "mixed" else None


def default_window(context: int) -> int:
    """Ranks of an inner ring: context / i for the largest divisor i <= context / i.

    >>> [default_window(context) for context in (1, 2, 4, 6, 8, 12)]
    [1, 2, 2, 3, 4, 4]
    """
    return next(context // i for i in range(int(context**0.5), 0, -1) if context % i == 0)

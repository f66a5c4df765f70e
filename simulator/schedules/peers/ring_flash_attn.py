"""ring-flash-attn 0.1.8: a ring of K and V forward, of fp32 dK and dV backward, each sum a kernel of its own.

    forward    P - 1 hops of K, V                 one batched send and receive per hop
    backward   P - 1 hops of K, V, P hops of dK, dV in fp32, on the same communicator

O and LSE are merged out of place by a scripted function; the zigzag variant updates a slice and copies it back where
only the second half of the queries sees the keys. With real flash-attn the backward kernels write into buffers that
are allocated once; the stand-in that runs over PyTorch's kernels (`validators.peers`) adds a copy of dq, dk and dv per
step.
Source: github zhuzilin/ring-flash-attention 0.1.8, ring_flash_attn.py, zigzag_ring_flash_attn.py,
stripe_flash_attn.py, utils.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from simulator.program.partition import Partition
from simulator.program.partitioners import build_partition
from simulator.program.recorder import Recorder
from simulator.program.rings import Ring
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, Schedule, check_choice, detail
from simulator.schedules.peers.unfused import SCRIPTED, add, copy_again, everywhere, merge
from traces.errors import InputError

PARTITION = {"ring": "contiguous", "zigzag": "zigzag", "stripe": "striped"}
SLICE = {"zigzag": 0.5, "stripe": 1.0}
"""Share of the rows of O that are put back where a step merges some only: the second half, all but the first."""


@dataclass(frozen=True)
class RingFlashAttn(Schedule):
    """ring-flash-attn.

    Parameters
    ----------
    variant : ring, zigzag or stripe; the last two are for the causal mask.
    stand_in : over PyTorch's kernels, which return gradients that are then copied, instead of flash-attn's.
    """

    variant: str = "ring"
    stand_in: bool = detail(False)

    name: ClassVar[str] = "ring-flash-attn"
    source: ClassVar[str] = "github zhuzilin/ring-flash-attention 0.1.8"
    whole_prompt: ClassVar[str] = "its code knows no keys kept from earlier chunks"

    def resolve(self, setup: Setup) -> Self:
        """There are no defaults to fill in."""
        return self

    def check(self, setup: Setup) -> None:
        """Refuse masks that the code has no argument for."""
        check_choice(self, "variant", tuple(PARTITION))
        mask = str(setup.workload.mask)
        if mask not in ("causal", "full") or (mask == "full" and self.variant != "ring"):
            allowed = "causal or full" if self.variant == "ring" else "causal"
            raise InputError(f"{self.name} {self.variant} takes other masks", got=mask, expected=allowed)
        self.input_partition(setup)

    def input_partition(self, setup: Setup) -> Partition:
        """As the variant says."""
        return build_partition(PARTITION[self.variant], setup.workload.seq_len, setup.n_ranks)

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """P steps."""
        return forward_on(r, r.setup.flat_ring(), self.variant, q, k, v)

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """P steps; dK and dV one step behind their keys."""
        return backward_on(r, r.setup.flat_ring(), (q, k, v), saved, do, stand_in=self.stand_in)


def forward_on(r: Recorder, ring: Ring, variant: str, q: Tensor, k: Tensor, v: Tensor) -> Saved:
    """Its forward functions, on a ring of ranks."""
    total = None
    for step in r.steps(ring.size):
        arriving = r.shift(ring, k, v) if step < ring.size - 1 else (k, v)
        total = merge(r, total, r.attention(q, k, v), SCRIPTED)
        if step and variant in SLICE:
            copy_again(r, total.o, ring.position < step, share=SLICE[variant])
        k, v = arriving
    return r.finish(total)


def backward_on(
    r: Recorder, ring: Ring, qkv: tuple[Tensor, Tensor, Tensor], saved: Saved, do: Tensor, *, stand_in: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Its backward functions; a ring of one sends dK and dV to itself."""
    (q, k, v), (o, lse) = qkv, saved[:2]
    total_q = total_k = total_v = None
    for step in r.steps(ring.size):
        arriving = r.shift(ring, k, v) if step < ring.size - 1 else (k, v)
        dq, dk, dv = r.attention_backward(q, k, v, do, lse, o=o)
        for gradient in (dq, dk, dv):
            copy_again(r, gradient.tensor, everywhere(r, stand_in))
        total_q = add(r, total_q, dq)
        new_k, new_v = add(r, total_k, dk), add(r, total_v, dv)
        del dq, dk, dv
        total_k, total_v = r.shift(ring, new_k, new_v)
        for total in (total_k, total_v):
            copy_again(r, total, everywhere(r, ring.size == 1))
        k, v = arriving
    assert total_q is not None and total_k is not None and total_v is not None
    dtype = r.setup.workload.dtype
    return r.cast(total_q, dtype), r.cast(total_k, dtype), r.cast(total_v, dtype)

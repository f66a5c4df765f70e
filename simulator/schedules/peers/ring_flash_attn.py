"""ring-flash-attn 0.1.8: a ring of K and V forward, of fp32 dK and dV backward, each sum a kernel of its own.

    forward    P - 1 hops of K, V                 one batched send and receive per hop
    backward   P - 1 hops of K, V, P hops of dK, dV in fp32, on the same communicator

O and LSE are merged out of place by a scripted function; the zigzag variant updates a slice and copies it back where
only the second half of the queries sees the keys. With real flash-attn the backward kernels write into buffers that
are allocated once; the stand-in that runs over PyTorch's kernels adds a copy of dq, dk and dv per step, not counted.
Source: github zhuzilin/ring-flash-attention 0.1.8, ring_flash_attn.py, zigzag_ring_flash_attn.py,
stripe_flash_attn.py, utils.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from simulator.program.partition import Partition
from simulator.program.partitioners import build_partition
from simulator.program.recorder import Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, Schedule, check_choice
from simulator.schedules.peers.unfused import SCRIPTED, copy_again, merge
from traces.errors import InputError

PARTITION = {"ring": "contiguous", "zigzag": "zigzag", "stripe": "striped"}


@dataclass(frozen=True)
class RingFlashAttn(Schedule):
    """ring-flash-attn.

    Parameters
    ----------
    variant : ring, zigzag or stripe; the last two are for the causal mask.
    """

    variant: str = "ring"

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
        ring, total = r.setup.flat_ring(), None
        for step in r.steps(ring.size):
            arriving = r.shift(ring, k, v) if step < ring.size - 1 else (k, v)
            total = merge(r, total, r.attention(q, k, v), SCRIPTED)
            if self.variant == "zigzag" and step:
                copy_again(r, total.o, np.arange(ring.size) < step)
            k, v = arriving
        return r.finish(total)

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """P steps; dK and dV one step behind their keys."""
        ring, (o, lse) = r.setup.flat_ring(), saved
        total_q = total_k = total_v = None
        for step in r.steps(ring.size):
            arriving = r.shift(ring, k, v) if step < ring.size - 1 else (k, v)
            dq, dk, dv = r.attention_backward(q, k, v, do, lse, o=o)
            total_q = r.accumulate(total_q, (dq,), "fp32")
            (new_k,) = r.accumulate(total_k, (dk,), "fp32")
            (new_v,) = r.accumulate(total_v, (dv,), "fp32")
            del dq, dk, dv
            sent_k, sent_v = r.shift(ring, new_k, new_v)
            total_k, total_v = (sent_k,), (sent_v,)
            k, v = arriving
        assert total_q is not None and total_k is not None and total_v is not None
        dtype = r.setup.workload.dtype
        return r.cast(total_q[0], dtype), r.cast(total_k[0], dtype), r.cast(total_v[0], dtype)

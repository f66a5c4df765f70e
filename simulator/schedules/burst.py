"""BurstAttention: forward is the ring's; backward circulates queries, so that keys, values and their gradients stay.

    forward    P - 1 hops of K, V,               2 A_kv e bytes each    A_kv = B (S/P) K D elements, A = B (S/P) H D
    backward   P - 1 hops of Q, dO, delta, LSE,  2 A e + 8 R bytes      R = B (S/P) H rows, fp32; delta = rowsum(dO O)
               P hops of dQ,                     A g bytes              g = 2 (bf16, default) or 4; the last is exposed

dQ follows its queries one step behind: it is sent while the next step's kernel runs. On M nodes of L GPUs the ring is
double: data goes round inside every node (intra), and while it does, a copy crosses to the same local rank of the next
node (inter), with L steps to get there. Hops for M = 4, L = 8:  activations (L-1) M = 28 intra and M-1 = 3 inter;
dQ (L-1) M + 1 = 29 intra and M = 4 inter, one sum per node, added to what came from the nodes before; flat is M = 1.
Source: Sun et al. 2024 (arXiv 2403.09347) sections 2 and 3.3; order within a step, dtypes and visits as in the authors'
code (github MayDomine/Burst-Attention, burst_attn_interface.py, comm.py). Queries are H heads wide: with GQA the
backward sends more than the ring's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from simulator.program.partition import Partition
from simulator.program.partitioners import PARTITIONERS
from simulator.program.recorder import Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, Schedule, check_choice, default_partition, split_sequence
from simulator.schedules.ring import Ring, circulate


@dataclass(frozen=True)
class Burst(Schedule):
    """BurstAttention.

    Parameters
    ----------
    ring : flat (one ring) or double (rings inside nodes and between them); double on several nodes, else flat.
    partition : as for the ring; zigzag for causal masks, else contiguous.
    grad : dtype in which dQ is accumulated and sent, bf16 or fp32.
    """

    ring: str | None = None
    partition: str | None = None
    grad: str = "bf16"

    name: ClassVar[str] = "burst"
    source: ClassVar[str] = "Sun et al. 2024, arXiv 2403.09347, section 2; github MayDomine/Burst-Attention"

    def resolve(self, setup: Setup) -> Self:
        """Fill in ring and partition."""
        ring = self.ring or ("double" if setup.nodes > 1 else "flat")
        return replace(self, ring=ring, partition=self.partition or default_partition(setup.workload.mask))

    def check(self, setup: Setup) -> None:
        """Refuse unknown options and a sequence that the chunks do not divide."""
        check_choice(self, "ring", ("flat", "double"))
        check_choice(self, "partition", PARTITIONERS)
        check_choice(self, "grad", ("bf16", "fp32"))
        self.input_partition(setup)

    def input_partition(self, setup: Setup) -> Partition:
        """As the option says."""
        return split_sequence(self.partition, setup)

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """Cycles over the nodes, and in each a ring over a node's GPUs."""
        return circulate(r, r.setup.rings(double=self.ring == "double"), q, k, v, Ring())

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same visits with Q, dO, delta and LSE; dQ comes after them and ends with exposed hops home."""
        inner, outer = r.setup.rings(double=self.ring == "double")
        o, lse = saved
        visiting: tuple[Tensor, ...] = (q, do, r.row_dot(do, o), lse)
        total_kv = finished = None
        for cycle in range(outer.size):
            far = r.shift(outer, *visiting) if cycle < outer.size - 1 else visiting
            finished = r.shift(outer, *finished) if finished else None
            total_q = None
            for step in r.steps(inner.size):
                near = r.shift(inner, *visiting) if step < inner.size - 1 else visiting
                total_q = r.shift(inner, *total_q) if total_q else None
                q, do, delta, lse = visiting
                dq, dk, dv = r.attention_backward(q, k, v, do, lse, delta=delta)
                total_q = r.accumulate(total_q, (dq,), self.grad)
                total_kv = r.accumulate(total_kv, (dk, dv), r.setup.workload.dtype)
                visiting = near
                del dq, dk, dv
            assert total_q is not None
            finished = r.add(total_q, finished) if finished else total_q
            visiting = far
        assert finished is not None and total_kv is not None
        (total,) = r.shift(inner, *r.shift(outer, *finished))
        return r.cast(total, r.setup.workload.dtype), total_kv[0], total_kv[1]

"""Ring attention: queries stay, keys and values circulate; in backward their gradients circulate with them.

    forward    P - 1 hops of K, V,       2 A_kv e bytes each      A_kv = B (S/P) K D elements, e bytes of the dtype
    backward   P - 1 hops of K, V,       2 A_kv e bytes each
               P hops of dK, dV,         2 A_kv g bytes each      g = 4 (fp32, default) or e; the last is exposed

A hop of K, V is posted before the kernel of its step and hidden behind it; the hop of dK, dV behind the next step's.
Source: Liu et al. 2023 (arXiv 2310.01889) section 3; order, dtypes and accumulators as in ring-flash-attention 0.1.8
(ring_flash_attn.py, zigzag_ring_flash_attn.py, stripe_flash_attn.py); striped: Brandon et al. 2023 (arXiv 2311.09431).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from simulator.program.partition import Partition, build_partition
from simulator.program.recorder import Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import PARTITIONS, Saved, Schedule, check_choice, default_partition


@dataclass(frozen=True)
class Ring(Schedule):
    """Ring attention.

    Parameters
    ----------
    partition : contiguous, zigzag or striped; zigzag for causal masks, else contiguous.
    grad : dtype in which dK and dV are accumulated and sent, fp32 or bf16.
    """

    partition: str | None = None
    grad: str = "fp32"

    name: ClassVar[str] = "ring"
    source: ClassVar[str] = "Liu et al. 2023, arXiv 2310.01889, section 3; ring-flash-attention 0.1.8"

    def resolve(self, setup: Setup) -> Self:
        """Fill in the partition."""
        return replace(self, partition=self.partition or default_partition(setup.workload.mask))

    def check(self, setup: Setup) -> None:
        """Refuse unknown options and a sequence that the chunks do not divide."""
        check_choice(self, "partition", PARTITIONS)
        check_choice(self, "grad", ("fp32", "bf16"))
        self.input_partition(setup)

    def input_partition(self, setup: Setup) -> Partition:
        """As the option says."""
        name = self.partition or default_partition(setup.workload.mask)
        return build_partition(name, setup.workload.seq_len, setup.n_ranks)

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """P steps; every rank attends its queries to the keys it holds while the next ones arrive."""
        ring, total = r.setup.flat_ring(), None
        for step in r.steps(ring.size):
            arriving = r.shift(ring, k, v) if step < ring.size - 1 else (k, v)
            total = r.merge(total, r.attention(q, k, v))
            k, v = arriving
        return r.finish(total)

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """P steps; dK and dV follow their keys one step behind, and come home with a last, exposed hop."""
        ring, (o, lse) = r.setup.flat_ring(), saved
        total_q = total_kv = None
        for step in r.steps(ring.size):
            arriving = r.shift(ring, k, v) if step < ring.size - 1 else (k, v)
            dq, dk, dv = r.attention_backward(q, k, v, do, lse, o=o)
            total_q = r.accumulate(total_q, (dq,), "fp32")
            total_kv = r.accumulate(total_kv, (dk, dv), self.grad)
            del dq, dk, dv
            total_kv = r.shift(ring, *total_kv)
            k, v = arriving
        assert total_q is not None and total_kv is not None
        dtype = r.setup.workload.dtype
        return r.cast(total_q[0], dtype), r.cast(total_kv[0], dtype), r.cast(total_kv[1], dtype)

"""Ring attention: queries stay, keys and values circulate; in backward their gradients circulate with them.

    forward    P - 1 hops of K, V,       2 A_kv e bytes each      A_kv = B (S/P) K D elements, e bytes of the dtype
    backward   P - 1 hops of K, V,       2 A_kv e bytes each
               P hops of dK, dV,         2 A_kv g bytes each      g = 4 (fp32, default) or e; the last is exposed

A hop of K, V is posted before the kernel of its step and hidden behind it; the hop of dK, dV behind the next step's.
`circulate` and `circulate_back` do it on a double ring, of which the flat one is the case of one window: data goes
round the inner ring, and while it does, a copy crosses to the next ring. With P = m w ranks, m windows of w steps, that
is still P - 1 hops of K, V, m - 1 of them outer; dK, dV take w inner hops and one outer in every window.

Source: Liu et al. 2023 (arXiv 2310.01889) section 3; order, dtypes and accumulators as in ring-flash-attention 0.1.8
(ring_flash_attn.py, zigzag_ring_flash_attn.py, stripe_flash_attn.py); striped: Brandon et al. 2023 (arXiv 2311.09431).
What implementations differ in: TransformerEngine and LongCA-bench keep all P buffers of K, V and of partial results
(buffers=all), dK, dV are bf16 there; LoongTrain sends K and V as two messages; BurstAttention's Triton kernel takes up
the running result instead of a merge. With circulate=q the forward pass sends queries round instead of keys and values
(`pass_query`), which is less where few queries attend to many cached keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from simulator.program.partition import Partition
from simulator.program.partitioners import PARTITIONERS
from simulator.program.recorder import Partial, Recorder
from simulator.program.rings import Ring as RingGroup
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, Schedule, check_choice, default_partition, detail, split_sequence
from simulator.schedules.pass_query import circulate_queries
from traces.errors import InputError

Rings = tuple[RingGroup, RingGroup]
CIRCULATE = ("kv", "q")


@dataclass(frozen=True)
class Ring(Schedule):
    """Ring attention.

    Parameters
    ----------
    partition : contiguous, zigzag, striped, document-zigzag or area-balanced; zigzag for causal masks, else contiguous.
    grad : dtype in which dK and dV are accumulated and sent, fp32 or bf16.
    messages : K and V as one message (fused) or two (separate).
    buffers : two buffers of K, V, or all of them, kept with the partial results to the end.
    merge : partial results are merged by a kernel of their own (separate) or by the attention kernel (kernel).
    circulate : what goes round in the forward pass: keys and values (kv) or queries (q).
    """

    partition: str | None = None
    grad: str = "fp32"
    messages: str = detail("fused")
    buffers: str = detail("two")
    merge: str = detail("separate")
    circulate: str = detail("kv")

    name: ClassVar[str] = "ring"
    source: ClassVar[str] = "Liu et al. 2023, arXiv 2310.01889, section 3; ring-flash-attention 0.1.8"

    def resolve(self, setup: Setup) -> Self:
        """Fill in the partition."""
        return replace(self, partition=self.partition or default_partition(setup.workload.mask))

    def check(self, setup: Setup) -> None:
        """Refuse unknown options and a sequence that the chunks do not divide."""
        check_choice(self, "partition", PARTITIONERS)
        check_choice(self, "grad", ("fp32", "bf16"))
        check_choice(self, "messages", ("fused", "separate"))
        check_choice(self, "buffers", ("two", "all"))
        check_choice(self, "merge", ("separate", "kernel"))
        check_choice(self, "circulate", CIRCULATE)
        if self.circulate == "q" and (self.buffers, self.merge, self.messages) != ("two", "separate", "fused"):
            raise InputError("ring: buffers, merge and messages are about keys and values that go round",
                             got="circulate=q", remedy="leave them out")  # fmt: skip
        self.input_partition(setup)

    def input_partition(self, setup: Setup) -> Partition:
        """As the option says."""
        return split_sequence(self.partition, setup)

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """P steps; every rank attends its queries to the keys it holds while the next ones arrive."""
        return circulate(r, r.setup.rings(double=False), q, k, v, self)

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """P steps; dK and dV follow their keys one step behind, and come home with a last, exposed hop."""
        return circulate_back(r, r.setup.rings(double=False), (q, k, v), saved, do, self)


def circulate(r: Recorder, rings: Rings, q: Tensor, k: Tensor, v: Tensor, how: Ring) -> Saved:
    """(O, LSE) of the keys of all ranks of the rings (queries go round one flat ring only)."""
    inner, outer = rings
    if how.circulate == "q":
        return circulate_queries(r, inner, q, k, v)
    total, held = None, []
    for window in range(outer.size):
        far = _send(r, outer, (k, v), how) if window < outer.size - 1 else (k, v)
        for step in r.steps(inner.size):
            near = _send(r, inner, (k, v), how) if step < inner.size - 1 else (k, v)
            total, part = _attend(r, total, q, k, v, how)
            held += [k, v, part.o, part.lse] if how.buffers == "all" else []
            del part
            k, v = near
        k, v = far
    return r.finish(total)


def _send(r: Recorder, ring: RingGroup, tensors: Sequence[Tensor], how: Ring) -> tuple[Tensor, ...]:
    if how.messages == "fused":
        return r.shift(ring, *tensors)
    return tuple([each for tensor in tensors for each in r.shift(ring, tensor)])


def _attend(
    r: Recorder, total: Partial | None, q: Tensor, k: Tensor, v: Tensor, how: Ring
) -> tuple[Partial, Partial]:  # fmt: skip
    """The running result with these keys, and theirs alone (the same, where the kernel merges)."""
    if how.merge == "kernel" and total is not None:
        total = r.attention(q, k, v, into=total)
        return total, total
    part = r.attention(q, k, v)
    return r.merge(total, part), part


def circulate_back(
    r: Recorder, rings: Rings, qkv: tuple[Tensor, Tensor, Tensor], saved: Saved, do: Tensor, how: Ring,
    later_grad: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(dQ, dK, dV); ``later_grad`` is the dtype of dK and dV in all windows but the first, by default the same."""
    inner, outer = rings
    q, k, v = qkv
    o, lse = saved[:2]
    total_q = finished = None
    for window in range(outer.size):
        far = _send(r, outer, (k, v), how) if window < outer.size - 1 else (k, v)
        finished = _send(r, outer, finished, how) if finished else None
        total_kv, grad = None, later_grad or how.grad if window else how.grad
        for step in r.steps(inner.size):
            near = _send(r, inner, (k, v), how) if step < inner.size - 1 else (k, v)
            dq, dk, dv = r.attention_backward(q, k, v, do, lse, o=o)
            total_q = r.accumulate(total_q, (dq,), "fp32")
            total_kv = r.accumulate(total_kv, (dk, dv), grad)
            del dq, dk, dv
            total_kv = _send(r, inner, total_kv, how)
            k, v = near
        assert total_kv is not None
        finished = r.add(total_kv, finished) if finished else total_kv
        del total_kv
        k, v = far
    assert total_q is not None and finished is not None
    finished = _send(r, outer, finished, how)
    dtype = r.setup.workload.dtype
    return r.cast(total_q[0], dtype), r.cast(finished[0], dtype), r.cast(finished[1], dtype)

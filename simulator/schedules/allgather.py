"""All-gather of K and V: every rank holds all keys, and attends its own queries to them.

    forward    all-gather of K and of V,                     (P-1) 2 A_kv e bytes      A_kv = B (S/P) K D elements
    backward   the all-gathers again,                        (P-1) 2 A_kv e bytes
               reduce-scatter of dK and of dV,               (P-1) 2 A_kv g bytes      g = 2 (bf16, default) or 4

With all heads at once all of it is exposed (Llama 3, TransformerEngine, LongCA-bench). With head-group=h KV heads at a
time, the next group's all-gather is hidden behind this group's kernel and its reduce-scatter behind the next one's
(ring-flash-attention's llama3_flash_attn_varlen, heads_k_stride). All P A_kv of K and V are held, once more while they
are put in order.
Source: Llama Team 2024 (arXiv 2407.21783) section 3.3.2; github NVIDIA/TransformerEngine context_parallel.py; github
zhuzilin/ring-flash-attention llama3_flash_attn_varlen.py (contiguous parts); LongCA-bench (zigzag, bf16 gradients).
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
from simulator.schedules.gathering import in_order, scatter_sum, start_gather
from traces.errors import InputError


@dataclass(frozen=True)
class AllGather(Schedule):
    """All-gather of keys and values.

    Parameters
    ----------
    head_group : KV heads gathered at a time; None for all, without overlap.
    partition : contiguous, zigzag, document-zigzag or area-balanced; zigzag for causal masks, else contiguous.
    grad : dtype in which dK and dV are summed over ranks, bf16 or fp32.
    """

    head_group: int | None = None
    partition: str | None = None
    grad: str = "bf16"

    name: ClassVar[str] = "allgather"
    source: ClassVar[str] = "Llama Team 2024, arXiv 2407.21783, section 3.3.2; TransformerEngine; ring-flash-attention"

    def resolve(self, setup: Setup) -> Self:
        """Fill in the partition."""
        return replace(self, partition=self.partition or default_partition(setup.workload.mask))

    def check(self, setup: Setup) -> None:
        """Refuse unknown options, head groups that do not divide the KV heads, and striped parts."""
        check_choice(self, "partition", tuple(name for name in PARTITIONERS if name != "striped"))
        check_choice(self, "grad", ("bf16", "fp32"))
        if self.head_group is not None and self.head_group < 1:
            raise InputError("allgather: head-group is too small", got=self.head_group, expected="at least 1")
        if self.head_group is not None and setup.workload.kv_heads % self.head_group:
            raise InputError(
                f"allgather: head-group {self.head_group} does not divide {setup.workload.kv_heads} KV heads"
            )
        self.input_partition(setup)

    def input_partition(self, setup: Setup) -> Partition:
        """As the option says."""
        return split_sequence(self.partition, setup)

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """For each group of heads: gather, attend; the next group's gather is under way meanwhile."""
        w, per_kv = r.setup.workload, r.setup.workload.heads_per_kv_head
        own = self.head_group or w.kv_heads
        o = r.tensor("o", q.layout, w.heads, w.v_head_dim, w.dtype)
        lse = r.tensor("lse", q.layout, w.heads, 1, "fp32")
        arriving = self._start(r, k, v, 0)
        for group in r.steps(w.kv_heads // own):
            keys, heads = arriving, (group * own * per_kv, own * per_kv)
            arriving = self._start(r, k, v, group + 1)
            k_all, v_all = [in_order(r, each, k.layout) for each in keys]
            out = r.view(o, "o", heads=heads), r.view(lse, "lse", heads=heads)
            r.merge(None, r.attention(r.view(q, "q", heads=heads), k_all, v_all, out=out))
            del keys, k_all, v_all
        return o, lse

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """For each group of heads: gather again, differentiate, sum dK and dV where they belong."""
        w, per_kv, home = r.setup.workload, r.setup.workload.heads_per_kv_head, q.layout
        own = self.head_group or w.kv_heads
        o, lse = saved
        dq, dk, dv = [r.like(tensor, f"d{tensor.buffer.name}") for tensor in (q, k, v)]
        arriving, summed = self._start(r, k, v, 0), None
        for group in r.steps(w.kv_heads // own):
            keys, heads = arriving, (group * own * per_kv, own * per_kv)
            arriving = self._start(r, k, v, group + 1)
            k_all, v_all = [in_order(r, each, home) for each in keys]
            q_i, o_i, lse_i, do_i, dq_i = [r.view(each, each.buffer.name, heads=heads) for each in (q, o, lse, do, dq)]
            _, *parts = r.attention_backward(q_i, k_all, v_all, do_i, lse_i, o=o_i, dq=dq_i)
            totals = [r.accumulate(None, (part,), self.grad)[0] for part in parts]
            del keys, k_all, v_all, parts
            self._keep(r, summed, (dk, dv), group - 1)
            summed = [scatter_sum(r, total, home) for total in totals]
            del totals
        self._keep(r, summed, (dk, dv), w.kv_heads // own - 1)
        return dq, dk, dv

    def _start(self, r: Recorder, k: Tensor, v: Tensor, group: int) -> list[Tensor]:
        """The gathers of a group of heads, if there is one."""
        own = self.head_group or r.setup.workload.kv_heads
        if group * own >= r.setup.workload.kv_heads:
            return []
        return [start_gather(r, self._heads(r, tensor, group), tensor.layout) for tensor in (k, v)]

    def _heads(self, r: Recorder, tensor: Tensor, group: int) -> Tensor:
        """A group's heads, contiguous."""
        b = tensor.buffer
        if self.head_group is None or self.head_group == b.heads:
            return tensor
        part = r.view(tensor, b.name, heads=(group * self.head_group, self.head_group))
        return r.copy("cast", (part,), r.tensor(b.name, b.layout, self.head_group, b.dim, b.dtype), "copy")

    def _keep(self, r: Recorder, summed: list[Tensor] | None, gradients: tuple[Tensor, Tensor], group: int) -> None:
        """A group's dK and dV into those of all heads."""
        for part, whole in zip(summed or [], gradients, strict=False):
            heads = part.buffer.heads
            r.copy("cast", (part,), r.view(whole, whole.buffer.name, heads=(group * heads, heads)), "copy")

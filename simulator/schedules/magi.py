"""MagiAttention: chunks dealt so that every rank has the same work, and only the key rows that are needed move.

    forward    own keys first, then n remote stages; a stage's group-cast runs during the kernel of the one before
    backward   the casts again; dK, dV of a stage are group-reduced during the kernel of the next, the last is exposed

    sent, forward    over stages and receivers: rows that are needed there x 2 K D e bytes; backward the same, and back
                     in e (bf16, default) or fp32

Remote stages hold rows cast for one or two stages at a time. The benchmark has chunks of 2048 tokens and two stages.
With ``transport=native`` a row crosses to a node once, whoever needs it there: a cast is two all-to-alls, to relays
during the kernel before the one during which it is dealt out in the node; the first stage's dealing is exposed. The way
back likewise: added up in the node, then sent. These collectives find and add rows themselves; the default, as in the
benchmark, is an all-to-all-v of packed rows to each that needs them. That native ones hold 48 SMs is not modelled.
Source: Zewei and Yunpeng 2025, MagiAttention (github SandAI-org/MagiAttention, docs/source/blog/magi_attn.md and
cp_benchmark.md), as compared in LongCA-bench (arXiv 2510.17896) section 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from simulator.program.partition import Partition
from simulator.program.partitioners import PARTITIONERS, build_partition, default_chunk
from simulator.program.recorder import Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, Schedule, check_choice, detail
from simulator.schedules.group_cast import Stage, add_at_relays, arrange, plan_casts, start_cast, start_reduce
from traces.errors import InputError


@dataclass(frozen=True)
class Magi(Schedule):
    """MagiAttention-like group-cast.

    Parameters
    ----------
    chunk : tokens that are dealt together; 2048, or less so that every rank has 8 chunks.
    stages : remote stages, 2 by default.
    partition : area-balanced, or another one without strides.
    grad : dtype in which dK and dV go back, bf16 or fp32.
    transport : all-to-all-v, or native: rows cross to a node once, without kernels that pack them.
    """

    chunk: int | None = None
    stages: int = 2
    partition: str = detail("area-balanced")
    grad: str = detail("bf16")
    transport: str = detail("all-to-all-v")

    name: ClassVar[str] = "magi"
    source: ClassVar[str] = "github SandAI-org/MagiAttention; LongCA-bench, arXiv 2510.17896, section 2.2"
    whole_prompt: ClassVar[str] = "what its ranks send is solved for the mask of a whole prompt"

    def resolve(self, setup: Setup) -> Self:
        """Fill in the chunk."""
        return replace(self, chunk=self.chunk or default_chunk(setup.workload.seq_len, setup.n_ranks))

    def check(self, setup: Setup) -> None:
        """Refuse unknown options and chunks that do not divide the sequence."""
        check_choice(self, "partition", tuple(name for name in PARTITIONERS if name != "striped"))
        check_choice(self, "grad", ("bf16", "fp32"))
        check_choice(self, "transport", ("all-to-all-v", "native"))
        if self.stages < 1:
            raise InputError("magi: stages is too small", got=self.stages, expected="at least 1")
        self.input_partition(setup)

    def input_partition(self, setup: Setup) -> Partition:
        """Area-balanced chunks, unless another is asked for."""
        workload = setup.workload
        return build_partition(self.partition, workload.seq_len, setup.n_ranks, workload.mask, chunk=self.chunk)

    @property
    def _is_native(self) -> bool:
        return self.transport == "native"

    def _stages(self, r: Recorder) -> tuple[Stage, ...]:
        w, relayed = r.setup.workload, self._is_native and r.setup.nodes > 1
        node = r.setup.ranks_per_node if relayed else None
        return plan_casts(self.input_partition(r.setup), w.mask, w.seq_len, self.stages, node)

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """Own keys while the first remote ones arrive, and so on."""
        arrivals = _Arrivals(r, self._stages(r), (k, v), fused=self._is_native)
        total = r.merge(None, r.attention(q, k, v))
        arrivals.advance()
        for _ in r.steps(arrivals.count):
            far_k, far_v = arrivals.take()
            total = r.merge(total, r.attention(q, far_k, far_v))
        return r.finish(total)

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same stages; gradients of remote rows return a stage later."""
        o, lse = saved
        stages = self._stages(r)
        arrivals = _Arrivals(r, stages, (k, v), fused=self._is_native)
        dq, dk, dv = r.attention_backward(q, k, v, do, lse, o=o)
        total_q, total_kv = r.accumulate(None, (dq,), "fp32"), r.accumulate(None, (dk, dv), "fp32")
        del dq, dk, dv
        arrivals.advance()
        returning: list[Tensor] = []
        for stage in r.steps(len(stages)):
            far_k, far_v = arrivals.take()
            dq, dk, dv = r.attention_backward(q, far_k, far_v, do, lse, o=o)
            r.accumulate(total_q, (dq,), "fp32")
            if returning:
                r.add_by_token(total_kv, returning)
            far = [r.accumulate(None, (each,), self.grad)[0] for each in (dk, dv)]
            del dq, dk, dv, far_k, far_v
            returning = _start_return(r, stages[stage], far, fused=self._is_native)
            del far
        if returning:
            r.add_by_token(total_kv, returning)
        dtype = r.setup.workload.dtype
        return r.cast(total_q[0], dtype), r.cast(total_kv[0], dtype), r.cast(total_kv[1], dtype)


class _Arrivals:
    """Keys and values of the stages, on their way: one stage's to those that need them, the next one's to relays."""

    def __init__(
        self, r: Recorder, stages: tuple[Stage, ...], tensors: tuple[Tensor, ...], *, fused: bool
    ) -> None:  # fmt: skip
        self._r, self._stages, self._tensors, self._fused = r, stages, tensors, fused
        self.count, self._next = len(stages), 0
        first = self._start(0)
        self._coming, self._relayed = ([], first) if self._is_relayed else (first, [])

    @property
    def _is_relayed(self) -> bool:
        return self.count > 0 and len(self._stages[0]) > 1

    def _start(self, stage: int) -> list[Tensor]:
        """A stage's first all-to-all."""
        if stage >= self.count:
            return []
        return start_cast(self._r, self._stages[stage][0], self._tensors, fused=self._fused)

    def advance(self) -> None:
        """The first stage's rows leave the relays, and the second one's set out for them."""
        if self._is_relayed:
            self._deal()

    def _deal(self) -> None:
        """The next stage's second all-to-all, and the first of the one after it."""
        if self._next < self.count:
            self._coming = start_cast(
                self._r, self._stages[self._next][1], tuple(self._relayed), fused=self._fused
            )  # fmt: skip
            self._relayed = self._start(self._next + 1)

    def take(self) -> list[Tensor]:
        """Keys and values of the next stage; those of the one after it set out."""
        arrived = arrange(self._r, self._stages[self._next][-1], self._coming, fused=self._fused)
        self._next += 1
        self._coming = [] if self._is_relayed else self._start(self._next)
        if self._is_relayed:
            self._deal()
        return arrived


def _start_return(r: Recorder, stage: Stage, parts: list[Tensor], *, fused: bool) -> list[Tensor]:
    """Gradients on their way to the owners of their rows."""
    for cast in reversed(stage[1:]):
        parts = list(add_at_relays(r, stage[0], start_reduce(r, cast, tuple(parts), fused=fused)))
    return start_reduce(r, stage[0], tuple(parts), fused=fused)

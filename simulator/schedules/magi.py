"""MagiAttention: chunks dealt so that every rank has the same work, and only the key rows that are needed move.

    forward    own keys first, then n remote stages; a stage's group-cast runs during the kernel of the one before
    backward   the casts again; dK, dV of a stage are group-reduced during the kernel of the next, the last is exposed

    sent, forward    over stages and receivers: rows that are needed there x 2 K D e bytes; backward the same, and back
                     in e (bf16, default) or fp32

Remote stages hold rows cast for one or two stages at a time. The benchmark has chunks of 2048 tokens and two stages.
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
from simulator.schedules.group_cast import Cast, arrange, plan_casts, start_cast, start_reduce
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
    """

    chunk: int | None = None
    stages: int = 2
    partition: str = detail("area-balanced")
    grad: str = detail("bf16")

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
        if self.stages < 1:
            raise InputError("magi: stages is too small", got=self.stages, expected="at least 1")
        self.input_partition(setup)

    def input_partition(self, setup: Setup) -> Partition:
        """Area-balanced chunks, unless another is asked for."""
        workload = setup.workload
        return build_partition(self.partition, workload.seq_len, setup.n_ranks, workload.mask, chunk=self.chunk)

    def _casts(self, r: Recorder) -> tuple[Cast, ...]:
        w = r.setup.workload
        return plan_casts(self.input_partition(r.setup), w.mask, w.seq_len, self.stages)

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """Own keys while the first remote ones arrive, and so on."""
        casts = self._casts(r)
        arriving = start_cast(r, casts[0], (k, v)) if casts else []
        total = r.merge(None, r.attention(q, k, v))
        for stage in r.steps(len(casts)):
            far_k, far_v = arrange(r, casts[stage], arriving)
            arriving = start_cast(r, casts[stage + 1], (k, v)) if stage + 1 < len(casts) else []
            total = r.merge(total, r.attention(q, far_k, far_v))
        return r.finish(total)

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same stages; gradients of remote rows return a stage later."""
        o, lse = saved
        casts = self._casts(r)
        arriving = start_cast(r, casts[0], (k, v)) if casts else []
        dq, dk, dv = r.attention_backward(q, k, v, do, lse, o=o)
        total_q, total_kv = r.accumulate(None, (dq,), "fp32"), r.accumulate(None, (dk, dv), "fp32")
        del dq, dk, dv
        returning: list[Tensor] = []
        for stage in r.steps(len(casts)):
            far_k, far_v = arrange(r, casts[stage], arriving)
            arriving = start_cast(r, casts[stage + 1], (k, v)) if stage + 1 < len(casts) else []
            dq, dk, dv = r.attention_backward(q, far_k, far_v, do, lse, o=o)
            r.accumulate(total_q, (dq,), "fp32")
            if returning:
                r.add_by_token(total_kv, returning)
            far_dk, far_dv = [r.accumulate(None, (each,), self.grad)[0] for each in (dk, dv)]
            del dq, dk, dv, far_k, far_v
            returning = start_reduce(r, casts[stage], (far_dk, far_dv))
            del far_dk, far_dv
        if returning:
            r.add_by_token(total_kv, returning)
        dtype = r.setup.workload.dtype
        return r.cast(total_q[0], dtype), r.cast(total_kv[0], dtype), r.cast(total_kv[1], dtype)

"""DistFlashAttn (LightSeq): contiguous parts of a causal sequence, where ranks that would idle help others.

Rank p has p + 1 blocks to compute. In step t = 1, 2, ..., P/2 rank p >= t attends its queries to the keys of p - t,
and rank p < t, which has no such keys, takes the queries of p - t + P and attends them to its own keys: a pair of
blocks d > P/2 apart is thus computed by the one that has the keys, and its result (o, lse) sent back to be merged.
One exchange per step, from r to r + t mod P: keys and values, or queries where it wraps around. For even P nobody
helps in the last step, so that ranks idle for 1 / 2P of the time on average; for odd P never; unbalanced it would be
(P-1) / 2P.

    forward, rank r    K, V  2 A_kv e to each of r + t < P, else Q  A e;  back, for p < t:  O  A e  and LSE  4 R bytes
    backward           K, V, else Q, dO, O (A e each), LSE (4 R);  back: dK, dV in fp32 (8 A_kv), or dQ (4 A)

The exchange of step t + 1 is posted before the kernels of step t, results return during those of step t + 1.
Source: Li et al. 2023 (arXiv 2310.03294) section 3.1 and 3.2, Figure 1; without its rematerialisation-aware
checkpointing, which concerns layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from simulator.program.partition import Partition
from simulator.program.recorder import Partial, Recorder
from simulator.program.rings import Matching
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, Schedule, check_choice, detail, split_sequence
from traces.errors import InputError


class Step(NamedTuple):
    """Who sends to whom in a step, who gets keys, and who gets queries to help with."""

    there: Matching
    back: Matching
    own: NDArray[np.bool_]
    helps: NDArray[np.bool_]


@dataclass(frozen=True)
class LightSeq(Schedule):
    """DistFlashAttn, balanced.

    Parameters
    ----------
    grad : dtype in which gradients are sent back, fp32 or bf16.
    """

    grad: str = detail("fp32")

    name: ClassVar[str] = "lightseq"
    source: ClassVar[str] = "Li et al. 2023, arXiv 2310.03294, section 3"
    whole_prompt: ClassVar[str] = "its helpers are paired over the triangle of a whole prompt"

    def resolve(self, setup: Setup) -> Self:
        """No option depends on the setup."""
        return self

    def check(self, setup: Setup) -> None:
        """Refuse masks that let queries see later keys, and unknown options."""
        check_choice(self, "grad", ("fp32", "bf16"))
        if not setup.workload.mask.is_causal:
            raise InputError("lightseq is defined for causal masks", got=setup.workload.mask.brief)
        self.input_partition(setup)

    def input_partition(self, setup: Setup) -> Partition:
        """Contiguous."""
        return split_sequence("contiguous", setup)

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """The own block, then one step after the other; what helpers found is merged a step later."""
        steps = _steps(r.setup.n_ranks)
        arriving = _send(r, steps[0], (k, v), (q,)) if steps else []
        total, returning = None, None
        for step in r.steps(len(steps) + 1):
            if step == 0:
                total = r.merge(None, r.attention(q, k, v))
                continue
            (near_k, near_v, far_q), now = arriving, steps[step - 1]
            arriving = _send(r, steps[step], (k, v), (q,)) if step < len(steps) else []
            helped = r.attention(far_q, k, v)
            total = r.merge(total, r.attention(q, near_k, near_v))
            if returning is not None:
                total = r.merge(total, returning)
            returning = self._return(r, now, helped) if now.helps.any() else None
        if returning is not None:
            total = r.merge(total, returning)
        return r.finish(total)

    def _return(self, r: Recorder, step: Step, helped: Partial) -> Partial:
        """What helpers found, on its way to the queries' owners."""
        back = Matching("return", np.where(step.helps, step.back.to, np.arange(len(step.helps))))
        o, lse = _pass_back(r, back, (helped.o, helped.lse))
        return Partial(o, lse, helped.lowering.moved(back.source))

    def backward(
        self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, saved: Saved, do: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same steps; gradients of what was lent go back."""
        o, lse = saved
        lent, steps = (q, do, o, lse), _steps(r.setup.n_ranks)
        arriving = _send(r, steps[0], (k, v), lent) if steps else []
        dq, dk, dv = r.attention_backward(q, k, v, do, lse, o=o)
        (total_q,), total_kv = r.accumulate(None, (dq,), "fp32"), r.accumulate(None, (dk, dv), "fp32")
        returning: tuple[Tensor, ...] = ()
        for step in r.steps(len(steps)):
            (near_k, near_v, *far), now = arriving, steps[step]
            arriving = _send(r, steps[step + 1], (k, v), lent) if step + 1 < len(steps) else []
            far_q, far_do, far_o, far_lse = far
            helped = r.attention_backward(far_q, k, v, far_do, far_lse, o=far_o)
            dq, dk, dv = r.attention_backward(q, near_k, near_v, do, lse, o=o)
            r.accumulate((total_q,), (dq,), "fp32")
            r.accumulate(total_kv, helped[1:], "fp32")
            _add(r, (total_q, *total_kv), returning)
            parts = [r.accumulate(None, (each,), self.grad)[0] for each in (helped[0], dk, dv)]
            del helped, dq, dk, dv, far, far_q, far_do, far_o, far_lse
            returning = _pass_back(r, now.back, parts)
        _add(r, (total_q, *total_kv), returning)
        dtype = r.setup.workload.dtype
        return r.cast(total_q, dtype), r.cast(total_kv[0], dtype), r.cast(total_kv[1], dtype)


def _steps(ranks: int) -> list[Step]:
    """Steps 1 to P/2."""
    rank, steps = np.arange(ranks), []
    for t in range(1, ranks // 2 + 1):
        own, to = rank >= t, (rank + t) % ranks
        helps = ~own if 2 * t < ranks else np.zeros(ranks, dtype=np.bool_)
        receives = own | helps
        there = Matching("help", np.where(receives[to], to, rank))
        back = Matching("return", np.where(receives, (rank - t) % ranks, rank))
        steps.append(Step(there, back, own, helps))
    return steps


def _send(r: Recorder, step: Step, keys: tuple[Tensor, ...], queries: tuple[Tensor, ...]) -> list[Tensor]:
    """Keys to those that attend to them, queries to those that help with them, in one exchange."""
    arriving = []
    for tensors, ranks in ((keys, step.own), (queries, step.helps)):
        layout = tensors[0].layout.moved(step.there).only(ranks)
        arriving += [r.like(tensor, tensor.buffer.name, layout=layout) for tensor in tensors]
    r.exchange(step.there, (*keys, *queries), arriving)
    return arriving


def _pass_back(r: Recorder, back: Matching, parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Results to the ranks that sent what they are of."""
    receives = back.source != np.arange(back.n_ranks)
    arriving = [r.like(part, part.buffer.name, layout=part.layout.moved(back).only(receives)) for part in parts]
    r.exchange(back, parts, arriving)
    return tuple(arriving)


def _add(r: Recorder, totals: tuple[Tensor, ...], returned: tuple[Tensor, ...]) -> None:
    """Gradients that came back: whole tensors on some ranks, none on others."""
    if returned:
        r.add_by_token(totals, returned)

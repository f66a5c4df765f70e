"""Merge of partial results that all ranks have for the same rows: gathered, then summed by log-sum-exp.

    lse = log sum_r exp(lse_r),    o = sum_r exp(lse_r - lse) o_r

    sent    (P-1) B t (H D e + 4 H) bytes per rank for t rows, in two all-gathers (O in the dtype, LSE in fp32)

Source: Star Attention (Acharya et al. 2024, arXiv 2411.17116) section 2.2; APB Algorithm 3.
"""

from __future__ import annotations

from simulator.program.recorder import Partial, Recorder
from simulator.program.tape import Tensor


def combine_partials(r: Recorder, part: Partial) -> tuple[Tensor, Tensor]:
    """(O, LSE) over the keys of all ranks, on every rank."""
    if r.setup.n_ranks == 1:
        return r.finish(part)
    gathered = [_gather(r, tensor) for tensor in (part.o, part.lse)]
    o, lse = r.like(part.o, "o"), r.like(part.lse, "lse")
    r.combine(gathered[0], gathered[1], o, lse)
    return o, lse


def _gather(r: Recorder, tensor: Tensor) -> Tensor:
    b = tensor.buffer
    batch = r.setup.n_ranks * b.batch
    return r.all_gather(tensor, r.tensor(f"{b.name}, all", None, b.heads, b.dim, b.dtype, tokens=b.tokens, batch=batch))

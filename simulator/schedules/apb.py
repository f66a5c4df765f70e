"""APB: prefill in which hosts pass each other only the keys that a small trained head finds worth keeping.

Host r > 0 holds the rows [anchor | local], the first l_a tokens of the sequence and its own l_b = S/P; host 0 its local
rows only. In every layer each host scores its keys, keeps the l_p best per KV head (never anchor tokens), gathers all
hosts' choices, and attends to [passed by hosts before it | anchor | local] under the mask of `apb_mask`.

    sent         (P-1) l_p K 2 D e bytes per rank, in two all-gathers (K and V), not overlapped
    score        Linear (H + 2K) D -> 1024, SiLU, Linear 1024 -> K, max over 5 neighbouring tokens

It is approximate (exact under its own mask) and for inference only. Afterwards every host keeps the keys and values of
its local tokens; `decode` attends queries to them and merges by log-sum-exp.
Source: Huang et al. 2025 (arXiv 2502.12085) section 3, Algorithms 2 and 3, Tables 8 and 14; kernel order and the score
before RoPE as in github thunlp/APB.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from cost_models.masks import Lowering, TokenRange, apb_mask, lower
from cost_models.packing import packed_form
from simulator.program.operations import IntArray
from simulator.program.partition import Partition
from simulator.program.recorder import Partial, Recorder
from simulator.program.setup import Setup
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, Schedule
from simulator.schedules.combine import combine_partials
from traces.errors import InputError

SCORE_WIDTH = 1024
POOL_WIDTH = 5
LENGTHS = {32768: (1024, 512), 65536: (2048, 1024), 131072: (4096, 2048), 262144: (8192, 4096), 524288: (8192, 8192)}
"""Anchor and passing length by sequence length, for 8 hosts (Table 8)."""


@dataclass(frozen=True)
class Apb(Schedule):
    """APB prefill.

    Parameters
    ----------
    anchor : tokens l_a at the start of the sequence that every host but the first holds.
    passing : keys l_p that every host passes on, per KV head. Both default to Table 8's row of the nearest length.
    """

    anchor: int | None = None
    passing: int | None = None

    name: ClassVar[str] = "apb"
    exact: ClassVar[bool] = False
    source: ClassVar[str] = "Huang et al. 2025, arXiv 2502.12085, Algorithms 2 and 3; github thunlp/APB"
    asks_again: ClassVar[bool] = True
    whole_prompt: ClassVar[str] = (
        "its hosts hold a block of the whole prompt each, and pass on what is best of all of a block"
    )

    def resolve(self, setup: Setup) -> Self:
        """Fill in the lengths of the paper's nearest row, as far as half of a host's block and the rest of it allow."""
        nearest = min(LENGTHS, key=lambda length: abs(np.log(length / setup.workload.seq_len)))
        anchor, passing = LENGTHS[nearest]
        block = max(1, setup.workload.seq_len // setup.n_ranks)
        anchor = min(anchor, max(1, block // 2)) if self.anchor is None else self.anchor
        passing = min(passing, max(1, block - anchor)) if self.passing is None else self.passing
        return replace(self, anchor=anchor, passing=passing)

    def check(self, setup: Setup) -> None:
        """Refuse what the algorithm is not defined for."""
        workload, ranks = setup.workload, setup.n_ranks
        if str(workload.mask) != "causal":
            raise InputError(f"apb is defined for the causal mask, not {workload.mask.brief}")
        if workload.seq_len % ranks:
            raise InputError(f"seq_len {workload.seq_len} is not divisible by {ranks} hosts")
        anchor, passing = self._lengths(setup)
        block = workload.seq_len // ranks
        if not 0 < anchor <= block:
            raise InputError("apb: anchor does not fit a host's block", got=anchor, expected=f"1 to {block} tokens")
        if not 0 < passing <= block or (ranks > 1 and passing > block - anchor):
            most = max(block - anchor, 0)
            raise InputError(
                "apb: passing does not fit a host's block without the anchor", got=passing, expected=f"1 to {most} keys"
            )

    def _lengths(self, setup: Setup) -> tuple[int, int]:
        resolved = self.resolve(setup)
        assert resolved.anchor is not None and resolved.passing is not None
        return resolved.anchor, resolved.passing

    def input_partition(self, setup: Setup) -> Partition:
        """[anchor | local] on every host but the first."""
        return anchored_partition(setup, self._lengths(setup)[0])

    def forward(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """Score, select, gather, concatenate, attend."""
        return self.forward_scored(r, q, k, v, self.scores(r, q, k, v))

    def scores(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
        """Of every key, by the retaining head."""
        workload = r.setup.workload
        if r.setup.n_ranks == 1:
            return None
        wide = workload.heads * workload.head_dim + workload.kv_heads * (workload.head_dim + workload.v_head_dim)
        sizes = {"retain_1": (SCORE_WIDTH, wide), "retain_2": (workload.kv_heads, SCORE_WIDTH)}
        weights = tuple(
            [r.tensor(name, None, 1, columns, workload.dtype, tokens=rows, batch=1, is_input=True)
             for name, (rows, columns) in sizes.items()]
        )  # fmt: skip
        return r.score((q, k, v), weights, "score", pool=POOL_WIDTH)

    def forward_scored(self, r: Recorder, q: Tensor, k: Tensor, v: Tensor, scores: Tensor | None) -> Saved:
        """Select, gather, concatenate, attend."""
        _, passing = self._lengths(r.setup)
        if scores is not None:
            passed_k, passed_v = self._pass_on(r, scores, k, v, passing)
            del scores
            before = passing * np.arange(r.setup.n_ranks)
            k, v = self._prepend(r, passed_k, k, before), self._prepend(r, passed_v, v, before)
            del passed_k, passed_v
        return r.finish(r.merge(None, r.attention(q, k, v, self.lowerings(r.setup))))

    def _pass_on(self, r: Recorder, scores: Tensor, k: Tensor, v: Tensor, passing: int) -> tuple[Tensor, Tensor]:
        """The keys and values that all hosts keep, [P B, l_p, K, D] on every host."""
        anchor, workload = self._lengths(r.setup)[0], r.setup.workload
        kept = tuple(
            [r.tensor(f"{each.buffer.name} kept", None, each.buffer.heads, each.buffer.dim, workload.dtype,
                      tokens=passing) for each in (k, v)]
        )  # fmt: skip
        r.select(scores, (k, v), kept, skip=anchor)
        gathered = [
            r.all_gather(each, r.tensor(f"{each.buffer.name}, all", None, each.buffer.heads, each.buffer.dim,
                                        workload.dtype, tokens=passing, batch=r.setup.n_ranks * workload.batch))
            for each in kept
        ]  # fmt: skip
        return gathered[0], gathered[1]

    def _prepend(self, r: Recorder, passed: Tensor, own: Tensor, before: IntArray) -> Tensor:
        b = own.buffer
        target = r.tensor(f"{b.name}, passed and own", None, b.heads, b.dim, b.dtype, tokens=before + b.tokens)
        return r.concat(passed, own, target, before)

    def lowerings(self, setup: Setup) -> list[Lowering]:
        """Each host's kernels, on its rows and its own key axis."""
        anchor, passing = self._lengths(setup)
        block, found = setup.workload.seq_len // setup.n_ranks, []
        for host in range(setup.n_ranks):
            before, own_anchor = passing * host, anchor if host else 0
            mask, rows = apb_mask(before, own_anchor, block), own_anchor + block
            found.append(lower(mask, (TokenRange(0, rows),), (TokenRange(0, before + rows),), before + rows))
        return found


def anchored_partition(setup: Setup, anchor: int) -> Partition:
    """[anchor | local] on every host but the first, which holds its local rows."""
    ranks = setup.n_ranks
    edge = np.arange(ranks + 1) * (setup.workload.seq_len // ranks)
    start = np.stack([np.zeros(ranks, dtype=np.int64), edge[:-1]], axis=1)
    return Partition("anchored", start, np.stack([np.where(np.arange(ranks) > 0, anchor, 0), edge[1:]], axis=1))


def decode(r: Recorder, q: Tensor, k: Tensor, v: Tensor) -> Saved:
    """Attend queries that every host has to the keys of all hosts (Algorithm 3; Star Attention's phase 2).

    Parameters
    ----------
    q : [B, t, H, D], the last t tokens of the sequence, the same on every host.
    k, v : each host's local keys and values; the last host's end with those of the t tokens.

    Notes
    -----
    The mask is causal on the last host, whose keys hold the queries' own, and full on the others (the released code
    is causal everywhere, which hides up to t - 1 context keys per host; for t = 1 both are the same).
    """
    return combine_partials(r, attend_own(r, q, (k, v)))


def attend_own(
    r: Recorder, q: Tensor, rows: tuple[Tensor, ...], v_head_dim: int | None = None, *, missing: int = 0
) -> Partial:
    """Each host's part of :func:`decode`.

    Parameters
    ----------
    rows : keys and values, of which either may be packed; or keys whose first ``v_head_dim`` features are the values.
    missing : rows at the last host's end that have not come yet.
    """
    tokens, ranks = int(np.max(q.buffer.tokens)), r.setup.n_ranks
    held = np.broadcast_to(np.asarray(rows[0].buffer.tokens), (ranks,)).copy()
    held[-1] -= missing
    lowerings = [_lower_queries(tokens, keys, last=host == ranks - 1) for host, keys in enumerate(held.tolist())]
    form = packed_form(rows[-1].buffer.dtype)
    if form is None and v_head_dim is None:
        return r.merge(None, r.attention(q, rows[0], rows[1], lowerings))
    dim = v_head_dim or (form.values(rows[-1].buffer.dim) if form else 0)
    return r.merge(None, r.attention_cached(q, rows, dim, lowerings))


def _lower_queries(tokens: int, keys: int, *, last: bool) -> Lowering:
    """The last host's final ``tokens`` keys are the queries' own."""
    mask = apb_mask(keys - tokens, 0, tokens) if last else apb_mask(keys, 0, tokens)
    columns = TokenRange(0, keys)
    return lower(mask, (TokenRange(0, tokens),), (columns,), keys)

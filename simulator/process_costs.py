"""Prices operations where ranks are processes on a CPU host, by `cost_models.processes`.

A process issues and computes itself, so that issuing is part of every operation on the compute lane and the host lane
has nothing to do.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import numpy as np
from numpy.typing import NDArray

from cost_models.kernels import AttentionShape
from cost_models.process_attention import attention_features
from cost_models.processes import Features, ProcessProfile
from simulator.program.operations import (
    Attention,
    Collective,
    Column,
    Elementwise,
    Exchange,
    Gemm,
    HostCopy,
    IntArray,
    Operation,
    Stencil,
    Work,
)


class ProcessCosts:
    """Costs of operations on a host.

    Parameters
    ----------
    profile : the host.
    n_ranks : processes on it.
    seed : of one draw of the host's jitter; None for the fitted times as they are.
    """

    def __init__(self, profile: ProcessProfile, n_ranks: int, seed: int | None = None) -> None:
        self._profile, self._n_ranks = profile, n_ranks
        self._random = None if seed is None else np.random.default_rng(seed)
        self._priced: dict[Hashable, int] = {}

    def host_ns(self, operation: Operation) -> Column:
        """Nothing: see above."""
        return 0

    def device_ns(self, operation: Operation) -> Column:
        """Time on its lane, on each rank."""
        terms = list(features_by_rank(operation, self._n_ranks))
        column = np.array([self._price(term, features) for term, features in terms])
        if self._random is not None:
            slower = self._profile.slower(self._n_ranks, terms[0][0], self._drawn(operation, self._random))
            column = np.rint(column * slower).astype(np.int64)
        if operation.category == "compute":
            column += self._price("issue", (1.0,))
        return int(column[0]) if bool((column == column[0]).all()) else column

    def _drawn(self, operation: Operation, random: np.random.Generator) -> NDArray[np.float64]:
        """A probability of each rank; those of a collective, which nobody leaves much earlier, have one together."""
        drawn = random.random(self._n_ranks)
        if not isinstance(operation.work, Collective):
            return drawn
        groups = operation.work.groups
        return drawn[groups if groups is not None else np.zeros(self._n_ranks, np.int64)]

    def _price(self, term: str, features: Features) -> int:
        key = (term, features)
        if key not in self._priced:
            self._priced[key] = round(1e9 * self._profile.seconds(self._n_ranks, term, features))
        return self._priced[key]


def features_by_rank(operation: Operation, n_ranks: int) -> Iterator[tuple[str, Features]]:
    """The term of an operation, and its features on each rank."""
    term, work = term_of(operation, n_ranks), operation.work
    for rank in range(n_ranks):
        yield term, _features(operation, work, rank)


def term_of(operation: Operation, n_ranks: int) -> str:
    """What the operation is priced as."""
    work, kind = operation.work, operation.kind
    if isinstance(work, Attention):
        return f"attention_{work.direction}"
    if isinstance(work, Gemm):
        return f"gemm:{kind}"
    if isinstance(work, Elementwise):
        return f"elementwise:{kind}{_manner(operation, work)}"
    if isinstance(work, Stencil):
        return f"stencil:{kind}"
    if isinstance(work, Exchange):
        return "exchange"
    if isinstance(work, Collective):
        return f"{kind}:{n_ranks if work.groups is None else int(np.bincount(work.groups).max())}"
    return kind


def _manner(operation: Operation, work: Elementwise) -> str:
    """What makes PyTorch's loops several times slower: two dtypes, an index per token, rows that nobody used before."""
    if "by_token" in operation.options:
        return ":by_token"
    dtypes = {buffer.dtype for buffer in (*operation.reads, *operation.writes)}
    if operation.kind in ("accumulate", "cast") and len(dtypes) > 1:
        return ":mixed"
    return ":copy" if _is_free(work) else ""


def _features(operation: Operation, work: Work, rank: int) -> Features:
    if isinstance(work, Attention):
        shape = AttentionShape(work.batch, work.heads, work.kv_heads, work.head_dim, work.v_head_dim, work.dtype)
        calls = work.lowering.of(rank).calls
        return attention_features(calls, shape, work.direction, given_delta=work.precomputed_delta)
    if isinstance(work, Gemm):
        return 1.0, sum(2.0 * _at(work.m, rank) * m * n for m, n in work.shapes)
    if isinstance(work, Elementwise):
        # What a Program counts as free on a GPU (a projection writes it in place) is still written here.
        return 1.0, _moved(work, rank) or float(sum(_at(buffer.bytes, rank) for buffer in operation.writes))
    if isinstance(work, Stencil):
        return 1.0, float(_at(work.flop, rank))
    if isinstance(work, HostCopy):
        return 1.0, float(_at(work.bytes, rank))
    if isinstance(work, Exchange):
        return 1.0, float(len(operation.reads)), float(_at(work.bytes, rank))
    if work.splits is not None:
        received = work.splits[:, rank].sum() - work.splits[rank, rank]
        return 1.0, float(_at(work.bytes_sent, rank)), float(received * work.row_bytes)
    return 1.0, float(_at(work.bytes_sent, rank))


def _is_free(work: Elementwise) -> bool:
    return not (np.any(work.bytes_read) or np.any(work.bytes_written))


def _moved(work: Elementwise, rank: int) -> float:
    moved = float(_at(work.bytes_read, rank) + _at(work.bytes_written, rank))
    if work.lowering is None:
        return moved
    covered: IntArray = work.lowering.table.covered(work.side)
    return moved * int(covered[int(work.lowering.index[rank])])


def _at(column: Column, rank: int) -> int:
    return column if isinstance(column, int) else int(column[rank])

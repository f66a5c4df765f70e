"""Prices operations where ranks are processes on a CPU host, by `cost_models.processes`.

A process issues and computes itself, so that issuing is part of every operation on the compute lane and the host lane
has nothing to do.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import numpy as np

from cost_models.kernels import AttentionShape
from cost_models.processes import Features, ProcessProfile, attention_features
from simulator.program.operations import (
    Attention,
    Column,
    Elementwise,
    Exchange,
    Gemm,
    HostCopy,
    IntArray,
    Operation,
    Stencil,
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
            slower = self._profile.slower(self._n_ranks, terms[0][0], self._random.random(self._n_ranks))
            column = np.rint(column * slower).astype(np.int64)
        if operation.category == "compute":
            column += self._price("issue", (1.0,))
        return int(column[0]) if bool((column == column[0]).all()) else column

    def _price(self, term: str, features: Features) -> int:
        key = (term, features)
        if key not in self._priced:
            self._priced[key] = round(1e9 * self._profile.seconds(self._n_ranks, term, features))
        return self._priced[key]


def features_by_rank(operation: Operation, n_ranks: int) -> Iterator[tuple[str, Features]]:
    """The term of an operation, and its features on each rank."""
    work = operation.work
    for rank in range(n_ranks):
        if isinstance(work, Attention):
            shape = AttentionShape(work.batch, work.heads, work.kv_heads, work.head_dim, work.v_head_dim, work.dtype)
            features = attention_features(work.lowering.of(rank).calls, shape, work.direction)
            yield f"attention_{work.direction}:{work.head_dim}", features
        elif isinstance(work, Gemm):
            flop = sum(2.0 * _at(work.m, rank) * m * n for m, n in work.shapes)
            yield f"gemm:{operation.kind}", (1.0, flop)
        elif isinstance(work, Elementwise):
            # What a Program counts as free on a GPU (a projection writes it in place) is still written here.
            moved = _moved(work, rank) or float(sum(_at(buffer.bytes, rank) for buffer in operation.writes))
            yield f"elementwise:{operation.kind}", (1.0, moved)
        elif isinstance(work, Stencil):
            yield f"stencil:{operation.kind}", (1.0, float(_at(work.flop, rank)))
        elif isinstance(work, HostCopy):
            yield operation.kind, (1.0, float(_at(work.bytes, rank)))
        elif isinstance(work, Exchange):
            yield "exchange", (1.0, float(_at(work.bytes, rank)))
        else:
            yield operation.kind, (1.0, float(_at(work.bytes_sent, rank)))


def _moved(work: Elementwise, rank: int) -> float:
    moved = float(_at(work.bytes_read, rank) + _at(work.bytes_written, rank))
    if work.lowering is None:
        return moved
    covered: IntArray = work.lowering.table.covered(work.side)
    return moved * int(covered[int(work.lowering.index[rank])])


def _at(column: Column, rank: int) -> int:
    return column if isinstance(column, int) else int(column[rank])

"""Bytes sent, pairs attended and FLOP of a Program."""

from __future__ import annotations

import numpy as np

from simulator.engines.rows import sent_bytes
from simulator.program.lowered import LoweringColumn
from simulator.program.operations import Attention, Column, Gemm, IntArray, Operation, Stencil
from simulator.program.setup import Setup
from simulator.program.tape import Ignore

Rows = tuple[int, int]


class Traffic(Ignore):
    """A sink that adds up work, which does not depend on time.

    Parameters
    ----------
    setup : the ranks, and the attention of one of them.
    copies : how often every head of every sequence is attended (layers, microbatches, replicas).

    Attributes
    ----------
    flop : operations of all passes: 2 (D + Dv) per pair, head and batch row forward, 2.5 times that backward.
    rows : least and most queries of an attention call that has any, by direction.
    head_dim : largest of queries and keys; 0 where nothing is attended.
    backward_elements : largest of a rank's Q and K, as far as its backward kernels touch them.
    """

    def __init__(self, setup: Setup, copies: int = 1) -> None:
        self._n_ranks, self._heads = setup.n_ranks, setup.workload.heads * copies
        self._head_pairs = 0
        self._sent: Column = 0
        self.flop = self.head_dim = self.backward_elements = 0
        self.rows: dict[str, Rows] = {}
        self._seen: set[tuple[LoweringColumn, str]] = set()

    @property
    def pairs(self) -> int:
        """Attended (query, key) pairs of the forward pass over ranks and steps, per head and batch row (and layer)."""
        return self._head_pairs // self._heads

    @property
    def sent_bytes(self) -> IntArray:
        """Bytes that each rank puts on the wire to others."""
        return np.broadcast_to(np.asarray(self._sent), self._n_ranks)

    def operation(self, operation: Operation) -> None:
        """Add it up."""
        work = operation.work
        if isinstance(work, Attention):
            self._attention(work, operation)
        elif isinstance(work, Stencil):
            self.flop += self._total(work.flop, operation)
        elif isinstance(work, Gemm):
            rows = self._total(work.m, operation)
            self.flop += sum(2 * rows * m * n for m, n in work.shapes)
            self._head_pairs += work.head_pairs
        else:
            sent = sent_bytes(operation)
            self._sent = self._sent + (sent if operation.ranks is None else np.where(operation.ranks, sent, 0))

    def _total(self, column: Column, operation: Operation) -> int:
        """Sum over the ranks that take part."""
        everywhere = np.broadcast_to(np.asarray(column), self._n_ranks)
        return int((everywhere if operation.ranks is None else everywhere[operation.ranks]).sum())

    def _attention(self, work: Attention, operation: Operation) -> None:
        self._note_rows(work)
        ranks = operation.ranks
        total = work.lowering.total_pairs if ranks is None else self._total(work.lowering.pairs, operation)
        forward = 2 * (work.head_dim + work.v_head_dim) * work.heads * work.batch * total
        if work.direction == "forward":
            self._head_pairs += total * work.heads if operation.phase == "forward" else 0
            self.flop += forward
        else:
            self.flop += forward * 5 // 2

    def _note_rows(self, work: Attention) -> None:
        key = work.lowering, work.direction
        if key in self._seen:
            return
        self._seen.add(key)
        self.head_dim = max(self.head_dim, work.head_dim)
        covered = work.lowering.table.covered("q")
        counts = [int(covered[each]) for each in work.lowering.distinct if covered[each]]  # a table may be shared
        if counts:
            known = self.rows.get(work.direction, (counts[0], counts[0]))
            self.rows[work.direction] = min(*known, *counts), max(*known, *counts)
        if counts and work.direction == "backward":
            keys = int(work.lowering.table.covered("k")[work.lowering.distinct].max())
            largest = work.batch * work.head_dim * max(max(counts) * work.heads, keys * work.kv_heads)
            self.backward_elements = max(self.backward_elements, largest)

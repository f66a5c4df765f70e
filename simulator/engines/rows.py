"""Collects when operations ran, as a Timeline: of all ranks, or of one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from simulator.program.operations import Collective, Column, Exchange, IntArray, Operation
from traces.timeline import OperationInfo, Timeline


class Rows:
    """An observer that keeps rows.

    Parameters
    ----------
    n_ranks : number of ranks.
    rank : the only rank to keep; None keeps all.
    """

    def __init__(self, n_ranks: int, rank: int | None = None) -> None:
        self._n_ranks = n_ranks
        self._ranks = np.arange(n_ranks) if rank is None else np.array([rank])
        self._infos: list[OperationInfo] = []
        self._lanes: dict[str, int] = {}
        self._columns: list[list[IntArray]] = [[], [], [], [], [], []]

    def observe(self, operation: Operation, start_ns: Column, end_ns: Column) -> None:
        """Keep the rows of ranks that take part."""
        number = len(self._infos)
        self._infos.append(
            OperationInfo(
                number,
                f"{operation.kind} {operation.step}",
                operation.kind,
                operation.phase,
                operation.step,
                operation.category,
            )
        )
        lane = self._lanes.setdefault(operation.lane, len(self._lanes))
        ranks = self._ranks
        if operation.ranks is not None:
            ranks = ranks[operation.ranks[ranks]]
        values = (start_ns, end_ns, ranks, lane, number, sent_bytes(operation))
        for column, value in zip(self._columns, values, strict=True):
            column.append(ranks if value is ranks else _on(value, ranks))

    def timeline(self, provenance: Mapping[str, object] | None = None) -> Timeline:
        """Everything so far."""
        none = np.zeros(0, dtype=np.int64)
        start, end, rank, lane, operation, sent = [np.concatenate([none, *column]) for column in self._columns]
        return Timeline(
            tuple(self._infos), tuple(self._lanes), self._n_ranks, start, end, rank, lane, operation, sent,
            provenance or {},
        )  # fmt: skip


def _on(column: Column, ranks: IntArray) -> IntArray:
    if isinstance(column, int):
        return np.full(len(ranks), column)
    return np.asarray(column)[ranks]


def sent_bytes(operation: Operation) -> Column:
    """Bytes each rank puts on the wire to others."""
    if isinstance(operation.work, Exchange):
        return operation.work.bytes
    return operation.work.bytes_sent if isinstance(operation.work, Collective) else 0

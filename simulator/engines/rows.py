"""Collects when operations ran, as a Timeline: of all ranks, or of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

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
        self._lanes: list[str] = []
        self._present: list[NDArray[np.bool_] | None] = []
        self._columns: tuple[list[Column], ...] = [], [], []

    def observe(self, operation: Operation, start_ns: Column, end_ns: Column) -> None:
        """Keep when it ran, and what it sent; nothing of the operation, which holds buffers."""
        number, name = len(self._infos), f"{operation.kind} {operation.step}"
        self._infos.append(
            OperationInfo(number, name, operation.kind, operation.phase, operation.step, operation.category)
        )
        self._lanes.append(operation.lane)
        self._present.append(None if operation.ranks is None else operation.ranks[self._ranks])
        for column, value in zip(self._columns, (start_ns, end_ns, sent_bytes(operation)), strict=True):
            column.append(self._kept(value))

    def _kept(self, column: Column) -> Column:
        """Of the ranks that are kept."""
        everybody = isinstance(column, int) or len(self._ranks) == self._n_ranks
        return column if everybody else np.broadcast_to(column, self._n_ranks)[self._ranks]

    def timeline(self, provenance: Mapping[str, object] | None = None) -> Timeline:
        """Everything so far: the rows of ranks that take part."""
        shape = len(self._infos), len(self._ranks)
        present = np.ones(shape, dtype=bool)
        for number, here in enumerate(self._present):
            if here is not None:
                present[number] = here
        start, end, sent = (_stacked(column, shape)[present] for column in self._columns)
        operation, place = np.nonzero(present)
        numbers = {lane: number for number, lane in enumerate(dict.fromkeys(self._lanes))}
        lane = np.array([numbers[lane] for lane in self._lanes], dtype=np.int32)[operation]
        rank = self._ranks[place].astype(np.int32)
        return Timeline(
            tuple(self._infos), tuple(numbers), self._n_ranks, start, end, rank, lane, operation.astype(np.int32), sent,
            provenance or {},
        )  # fmt: skip


def _stacked(columns: Sequence[Column], shape: tuple[int, int]) -> IntArray:
    stacked = np.empty(shape, dtype=np.int64)
    for number, column in enumerate(columns):
        stacked[number] = column
    return stacked


def sent_bytes(operation: Operation) -> Column:
    """Bytes each rank puts on the wire to others."""
    if isinstance(operation.work, Exchange):
        return operation.work.bytes
    return operation.work.bytes_sent if isinstance(operation.work, Collective) else 0

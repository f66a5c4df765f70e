"""Prices of operations, kept: what has been priced for a cluster, a GPU and a kernel, in integer nanoseconds.

Rounding to nanoseconds happens in `to_ns` and `array_to_ns` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
from numpy.typing import NDArray

from cost_models.hardware import HardwareProfile
from cost_models.kernels import AttentionTimes
from cost_models.masks import Lowering
from cost_models.topology import ClusterTopology
from simulator.program.lowered import LoweringColumn, LoweringSet
from simulator.program.operations import Column, IntArray

FloatArray = NDArray[np.float64]


class Prices:
    """What has been priced for a topology, a profile and a kernel; cost models of these may share it."""

    def __init__(self) -> None:
        self.of: dict[Hashable, Column] = {}
        self.tables: dict[Hashable, tuple[LoweringSet, IntArray]] = {}
        self.attention: dict[Hashable, AttentionTimes] = {}

    def per_lowering(self, key: Hashable, column: LoweringColumn, price: Callable[[Lowering, int], int]) -> Column:
        """A number for each rank, at least 0: found once per distinct lowering, and only where a rank has it."""
        table = column.table
        full_key = (id(table), key)
        _, known = self.tables.get(full_key, (table, _NOTHING_KNOWN))
        if len(known) < len(table.lowerings):
            known = np.concatenate([known, np.full(len(table.lowerings) - len(known), _UNKNOWN)])
            self.tables[full_key] = (table, known)
        for number in column.distinct:
            if known[number] == _UNKNOWN:
                known[number] = price(table.lowerings[number], number)
        return column.gather(known)


_UNKNOWN = -1
_NOTHING_KNOWN = np.zeros(0, dtype=np.int64)
_SHARED: dict[tuple[int, int, str], tuple[ClusterTopology, HardwareProfile, Prices]] = {}
MOST_SHARED = 8
MOST_PRICES = 100_000


def shared_prices(topology: ClusterTopology, profile: HardwareProfile, kernel: str) -> Prices:
    """One and the same for these objects, as long as they are among the last few asked for."""
    key = id(topology), id(profile), kernel
    found = _SHARED.pop(key, None)
    if found is None or len(found[2].of) + len(found[2].tables) > MOST_PRICES:
        found = topology, profile, Prices()
    _SHARED[key] = found  # kept with its objects, so that an id names one of each only
    while len(_SHARED) > MOST_SHARED:
        del _SHARED[next(iter(_SHARED))]
    return found[2]


def to_ns(seconds: float) -> int:
    """Whole nanoseconds, rounded to nearest."""
    return round(seconds * 1e9)


def array_to_ns(seconds: FloatArray) -> IntArray:
    """Whole nanoseconds, rounded to nearest."""
    return np.rint(seconds * 1e9).astype(np.int64)


def shrink(column: IntArray) -> Column:
    """One number where all ranks agree."""
    return int(column[0]) if bool((column == column[0]).all()) else column

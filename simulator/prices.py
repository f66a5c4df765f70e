"""Prices of operations, kept: what has been priced for a cluster, a GPU and a kernel, in integer nanoseconds.

Rounding to nanoseconds happens in `to_ns` and `array_to_ns` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cost_models.hardware import HardwareProfile
from cost_models.kernels import AttentionTimes
from cost_models.masks import Lowering
from cost_models.network import Demand, network_part
from cost_models.network.occupancy import Occupancy
from cost_models.topology import ClusterTopology
from simulator.program.lowered import LoweringColumn, LoweringSet
from simulator.program.operations import Column, IntArray

FloatArray = NDArray[np.float64]
Key = TypeVar("Key")
Found = TypeVar("Found")


class NetworkPrices:
    """What has been priced for a topology and the network's part of a profile, whatever its kernels are.

    Attributes
    ----------
    times : of transfers and collectives.
    """

    def __init__(self) -> None:
        self.times: dict[Hashable, Column] = {}
        self._demands: dict[Hashable, list[Demand | None]] = {}
        self._kept = 0

    def demands(self, key: Hashable, find: Callable[[], list[Demand | None]]) -> list[Demand | None]:
        """What a transfer asks of links, found once while there is room for it."""
        found = self._demands.get(key)
        if found is None:
            found = find()
            if self._kept + len(found) <= MOST_DEMANDS:
                self._demands[key] = found
                self._kept += len(found)
        return found


class Prices:
    """What has been priced for a topology, a profile and a kernel; cost models of these may share it.

    Parameters
    ----------
    network : what of it does not depend on kernels.
    """

    def __init__(self, network: NetworkPrices | None = None) -> None:
        self.network = network or NetworkPrices()
        self.of: dict[Hashable, Column] = {}
        self.tables: dict[Hashable, tuple[LoweringSet, IntArray]] = {}
        self.attention: dict[Hashable, AttentionTimes] = {}
        self.occupied: dict[Hashable, Occupancy] = {}

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
_SHARED_NETWORK: dict[tuple[int, Hashable], tuple[ClusterTopology, NetworkPrices]] = {}
MOST_SHARED = 8
MOST_PRICES = 100_000
MOST_DEMANDS = 100_000
"""Of all transfers that are kept, by sending rank: some 50 MB."""


def shared_prices(topology: ClusterTopology, profile: HardwareProfile, kernel: str) -> Prices:
    """One and the same for these objects, as long as they are among the last few asked for."""
    key = id(topology), id(profile), kernel
    found = _SHARED.pop(key, None)
    if found is None or len(found[2].of) + len(found[2].tables) + len(found[2].occupied) > MOST_PRICES:
        found = topology, profile, Prices(_shared_network(topology, profile))
    _keep(_SHARED, key, found)
    return found[2]


def _shared_network(topology: ClusterTopology, profile: HardwareProfile) -> NetworkPrices:
    """One and the same also for profiles that differ in kernels only."""
    key = id(topology), network_part(profile)
    found = _SHARED_NETWORK.pop(key, None)
    if found is None or len(found[1].times) > MOST_PRICES:
        found = topology, NetworkPrices()
    _keep(_SHARED_NETWORK, key, found)
    return found[1]


def _keep(shared: dict[Key, Found], key: Key, found: Found) -> None:
    """As the last that was asked for, with its objects, so that an id names one of each only."""
    shared[key] = found
    while len(shared) > MOST_SHARED:
        del shared[next(iter(shared))]


def to_ns(seconds: float) -> int:
    """Whole nanoseconds, rounded to nearest."""
    return round(seconds * 1e9)


def array_to_ns(seconds: FloatArray) -> IntArray:
    """Whole nanoseconds, rounded to nearest."""
    return np.rint(seconds * 1e9).astype(np.int64)


def shrink(column: IntArray) -> Column:
    """One number where all ranks agree."""
    return int(column[0]) if bool((column == column[0]).all()) else column

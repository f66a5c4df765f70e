"""How busy each link is during a Program: the capacity that all its transfers take, over capacity and time."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from cost_models.network import Demand
from simulator.engines.sharing import DemandSource, demand_key
from simulator.program.operations import Operation
from simulator.program.tape import Ignore

FloatArray = NDArray[np.float64]


class LinkLoads(Ignore):
    """A sink that adds up what transfers take of links.

    Parameters
    ----------
    source : knows the demands of transfers.
    n_links : of the topology.
    """

    def __init__(self, source: DemandSource, n_links: int) -> None:
        self._source, self._taken = source, np.zeros(n_links)
        self._known: dict[Hashable, FloatArray] = {}

    def operation(self, operation: Operation) -> None:
        """Add an exchange or collective."""
        key = demand_key(operation)
        if key is None:
            return
        if key not in self._known:
            self._known[key] = self._take(self._source.demands(operation))
        self._taken += self._known[key]

    def _take(self, demands: Sequence[Demand | None]) -> FloatArray:
        taken = np.zeros(len(self._taken))
        for demand in demands:
            if demand is not None:
                moved = demand.ceiling_bytes_per_s * demand.moving_s
                np.add.at(taken, list(demand.links), np.array(demand.weights) * moved)
        return taken

    def shares(self, capacities_bytes_per_s: FloatArray, time_s: float) -> tuple[float, ...]:
        """Share of the time for which each link was in full use."""
        return tuple((self._taken / capacities_bytes_per_s / time_s).tolist()) if time_s > 0 else ()

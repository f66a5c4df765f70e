"""How long each rank's host needs to issue a Program, were nothing else in its way."""

from __future__ import annotations

import numpy as np

from simulator.engines.costs import Costs
from simulator.program.operations import IntArray, Operation
from simulator.program.tape import Ignore


class HostTimes(Ignore):
    """A sink that adds up what hosts take.

    Attributes
    ----------
    issuing_ns : of each rank.
    """

    def __init__(self, n_ranks: int, costs: Costs) -> None:
        self._costs, self.issuing_ns = costs, np.zeros(n_ranks, dtype=np.int64)

    def operation(self, operation: Operation) -> None:
        """Add an operation."""
        taken: IntArray = np.broadcast_to(np.asarray(self._costs.host_ns(operation)), self.issuing_ns.shape)
        self.issuing_ns += taken if operation.ranks is None else np.where(operation.ranks, taken, 0)

"""Prices on a cluster whose ranks are not all as fast."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cost_models.hardware import HardwareProfile
from cost_models.topology import ClusterTopology
from simulator.contended import ContendedCosts
from simulator.program.operations import Attention, Collective, Column, Exchange, Gemm, IntArray, Operation


class SlowRankCosts(ContendedCosts):
    """Prices on a cluster with slow ranks.

    Parameters
    ----------
    factors : how much longer the kernels of a rank take.
    """

    def __init__(
        self, topology: ClusterTopology, profile: HardwareProfile, kernel: str, factors: Mapping[int, float]
    ) -> None:  # fmt: skip
        super().__init__(topology, profile, kernel)
        self._factor = np.ones(topology.n_ranks)
        self._factor[list(factors)] = list(factors.values())

    def device_ns(self, operation: Operation) -> Column:
        """Kernels of slow ranks take longer."""
        return self._slow(operation, super().device_ns(operation))

    def slower_ns(self, operation: Operation, taken: int) -> Column:
        """Also beside communication."""
        if not taken or not isinstance(operation.work, Attention | Gemm):
            return self.device_ns(operation)
        return self._slow(operation, super().slower_ns(operation, taken))

    def _slow(self, operation: Operation, time_ns: Column) -> Column:
        if isinstance(operation.work, Exchange | Collective):
            return time_ns
        slowed: IntArray = np.rint(time_ns * self._factor).astype(np.int64)
        return slowed

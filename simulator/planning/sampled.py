"""Prices for planning: of many different kernels that one attention call launches, a sample is priced.

Bounds and looks go on from little work to much. That is an underestimate only where a GPU's clock falls once, and for
good (`cost_models.kernels.power`): `falling_once` is a profile without the control that first overshoots and acts again
later, both of which only take time.

Kernels are ordered by their pairs; up to `MOST_PRICED` each is priced, of more every so many, with straight lines in
between, or, where a price must not be too high, with the next cheaper sample.
"""

from __future__ import annotations

import numpy as np

from cost_models.hardware import HardwareProfile
from cost_models.hardware.power import PowerTerms
from cost_models.topology import ClusterTopology
from simulator.costing import CostModel
from simulator.prices import shared_prices
from simulator.program.operations import Attention, Column, IntArray, Operation
from simulator.worked import STEPS_S, Worked

MOST_PRICED = 48
"""Different kernels of an attention call up to which each is priced."""

MOST_PROFILES = 16
"""Profiles that are kept."""

_FALLING: dict[int, tuple[HardwareProfile, HardwareProfile]] = {}


def falling_once(profile: HardwareProfile) -> HardwareProfile:
    """The same GPU without its control of power; one and the same for a profile, as prices are kept by profile."""
    if id(profile) not in _FALLING:
        while len(_FALLING) >= MOST_PROFILES:
            del _FALLING[next(iter(_FALLING))]
        _FALLING[id(profile)] = profile, profile.model_copy(update={"power": PowerTerms()})
    return _FALLING[id(profile)][1]


class SampledCosts(CostModel):
    """Prices in which of many different kernels of one call a sample is priced."""

    def __init__(
        self, topology: ClusterTopology, profile: HardwareProfile, kernel: str, worked: Worked | None = None
    ) -> None:
        super().__init__(topology, profile, kernel, worked, shared_prices(topology, profile, kernel))

    def _attention(self, work: Attention, worked_s: float) -> Column:
        column, key, price = self._attention_price(work, worked_s)
        table = column.table
        if len(table.lowerings) <= MOST_PRICED:
            return super()._attention(work, worked_s)
        self._tables.setdefault((id(table), "sampled"), (table, np.zeros(0, dtype=np.int64)))  # its id stays its own
        distinct = np.unique(column.distinct)
        ranked = distinct[np.argsort(table.pairs[distinct], kind="stable")]
        places = np.unique(np.linspace(0, len(ranked) - 1, MOST_PRICED).round().astype(np.int64))
        priced: list[int] = []
        for number in ranked[places].tolist():
            own = "sampled", id(table), key, number
            if own not in self._priced:
                self._priced[own] = price(table.lowerings[number], number)
            priced.append(int(np.max(self._priced[own])))
        known = np.zeros(len(table.lowerings), dtype=np.int64)
        known[ranked] = self._between(np.arange(len(ranked)), places, np.array(priced, dtype=np.int64))
        return column.gather(known)

    def _between(self, at: IntArray, places: IntArray, priced: IntArray) -> IntArray:
        return np.rint(np.interp(at, places, priced)).astype(np.int64)


class LeastCosts(SampledCosts):
    """Prices that operations are never below: on GPUs that have rested, with hosts that are ahead.

    Parameters
    ----------
    worked_s : how long GPUs have worked before every operation.
    """

    def __init__(self, topology: ClusterTopology, profile: HardwareProfile, kernel: str, worked_s: float = 0.0) -> None:
        super().__init__(topology, profile, kernel, _Always(worked_s))

    def host_ns(self, operation: Operation) -> Column:
        """Nothing: what is to be done has been issued."""
        return 0

    def _between(self, at: IntArray, places: IntArray, priced: IntArray) -> IntArray:
        """The least of the sample before and all after."""
        least = np.minimum.accumulate(priced[::-1])[::-1]
        return np.asarray(least[np.searchsorted(places, at, side="right") - 1])


class _Always(Worked):
    """The same time worked before every operation."""

    def __init__(self, worked_s: float) -> None:
        super().__init__()
        assert worked_s in STEPS_S
        self._always_s = worked_s

    def before_s(self, operation: Operation) -> float:
        """As it was given."""
        return self._always_s

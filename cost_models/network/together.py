"""Collectives of several groups that run at the same time, each over and over: jobs that share a machine.

Each is its demand on links (`demands`); while all run, their rates are max-min fair. A job whose links nobody else
needs takes its time alone.

    t = overhead + bytes of one of its flows / rate
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cost_models.network.collectives import estimate_collective_s
from cost_models.network.demands import Demand, collective_demand
from cost_models.network.fairness import max_min_rates
from cost_models.network.terms import Terms
from cost_models.topology import ClusterTopology

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile


@dataclass(frozen=True)
class Job:
    """A collective that one group does over and over; arguments as for `estimate_collective`."""

    kind: str
    ranks: ArrayLike
    bytes_per_rank: float


@dataclass(frozen=True)
class Shared:
    """Seconds of a job's collective beside the other jobs, and the link that limits it (empty: none that is shared)."""

    seconds: float
    bottleneck: str


def estimate_together(
    topology: ClusterTopology, profile: HardwareProfile, jobs: Sequence[Job], terms: Terms | None = None
) -> tuple[Shared, ...]:
    """Collectives of jobs that run at once.

    Parameters
    ----------
    jobs : groups of different ranks.
    terms : instead of those of the machine.

    >>> from cost_models.hardware import load_hardware
    >>> from cost_models.topology import load_topology
    >>> node, gpu = load_topology("dgx-h100"), load_hardware("h100-sxm")
    >>> pairs = [Job("all_reduce", pair, 2**28) for pair in ([0, 1], [2, 3])]
    >>> [each.bottleneck for each in estimate_together(node, gpu, pairs)]
    ['', '']
    """
    alone = [estimate_collective_s(topology, profile, job.kind, job.ranks, job.bytes_per_rank, terms) for job in jobs]
    demands = [
        collective_demand(topology, profile, job.kind, job.ranks, int(job.bytes_per_rank), seconds)
        for job, seconds in zip(jobs, alone, strict=True)
    ]
    moving = [demand or Demand(0.0, 0.0, 1.0, (), ()) for demand in demands]
    flow = np.repeat(np.arange(len(jobs)), [len(demand.links) for demand in moving])
    link = np.array([number for demand in moving for number in demand.links], np.int64)
    weight = np.array([each for demand in moving for each in demand.weights])
    capacities = topology.link_capacities_bytes_per_s
    ceilings = np.array([demand.ceiling_bytes_per_s for demand in moving])
    rates = max_min_rates(flow, link, capacities, ceilings, weight)
    used = np.bincount(link, weight * rates[flow], minlength=len(capacities)) / capacities
    return tuple(
        _shared(topology, demand, float(rate), used) for demand, rate in zip(moving, rates.tolist(), strict=True)
    )


def _shared(topology: ClusterTopology, demand: Demand, rate: float, used: NDArray[np.float64]) -> Shared:
    slowed = rate < demand.ceiling_bytes_per_s * (1 - 1e-9)
    fullest = max(demand.links, key=used.__getitem__, default=-1)
    seconds = demand.overhead_s + demand.moving_s * demand.ceiling_bytes_per_s / rate
    return Shared(seconds, topology.links[fullest].name if slowed else "")

"""One collective over a group of ranks: as NCCL would do it, how long it takes and how many SMs it holds.

The communicator says over which channels, the tuner by which algorithm and protocol (unless the user insists on one),
`algorithms` how long, with the `terms` of the machine. An all-to-all is sends to all ranks at once; the busiest link
bounds it: inside the node every pair's data cross their route, and to other nodes each rank sends over its NIC.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cost_models.network.algorithms import all_to_all_s, collective_s
from cost_models.network.communicator import Communicator, communicator
from cost_models.network.loads import all_to_all_loads, fabric_share, slowest_share
from cost_models.network.terms import Terms, regimes_of, terms_of
from cost_models.network.tuner import COLLECTIVES, choose
from cost_models.topology import ClusterTopology
from traces.errors import InputError

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile

IntArray = NDArray[np.int64]

SENDS = "Sends"
"""Algorithm of an all-to-all: the tuner has no choice."""


@dataclass(frozen=True)
class CollectiveEstimate:
    """A collective as NCCL would do it.

    Attributes
    ----------
    seconds : time alone on the links.
    algorithm, protocol : of the tuner's choice; ``Sends`` for an all-to-all.
    channels : thread blocks, each of which holds one SM until the collective ends.
    """

    seconds: float
    algorithm: str
    protocol: str
    channels: int


def estimate_collective_s(
    topology: ClusterTopology, profile: HardwareProfile, kind: str, ranks: ArrayLike, bytes_per_rank: float,
    terms: Terms | None = None,
) -> float:  # fmt: skip
    """Seconds of a collective, as :func:`estimate_collective`."""
    return estimate_collective(topology, profile, kind, ranks, bytes_per_rank, terms=terms).seconds


def estimate_collective(
    topology: ClusterTopology,
    profile: HardwareProfile,
    kind: str,
    ranks: ArrayLike,
    bytes_per_rank: float,
    *,
    algorithm: str | None = None,
    protocol: str | None = None,
    terms: Terms | None = None,
) -> CollectiveEstimate:
    """A collective of a group.

    Parameters
    ----------
    kind : one of ``COLLECTIVES``.
    ranks : the group.
    bytes_per_rank : each rank's input: its chunk of an all-gather, all n chunks of a reduce-scatter or all-to-all, the
        whole vector of an all-reduce, broadcast or reduce.
    algorithm, protocol : instead of the tuner's choice: Ring, Tree, NVLS, NVLSTree, PAT, CollNetDirect or
        CollNetChain; LL, LL128 or Simple.
    terms : instead of those of the machine.

    Raises
    ------
    InputError
        Where the collective is unknown, a rank occurs twice or does not exist, bytes are negative, or the collective
        cannot be done as wanted.

    >>> from cost_models.hardware import load_hardware
    >>> from cost_models.topology import load_topology
    >>> node, gpu = load_topology("dgx-h100"), load_hardware("h100-sxm")
    >>> found = estimate_collective(node, gpu, "all_reduce", range(8), 2**30)
    >>> found.algorithm, found.channels, 2**30 * 7 / 4 / found.seconds / 1e9 > 400
    ('NVLS', 16, True)
    """
    if kind not in COLLECTIVES:
        raise InputError("unknown collective", got=repr(kind), expected="one of " + ", ".join(COLLECTIVES))
    if bytes_per_rank < 0:
        raise InputError("negative bytes", got=bytes_per_rank)
    comm = communicator(topology, ranks)
    if comm.n_ranks == 1 or bytes_per_rank == 0:
        return CollectiveEstimate(0.0, "", "", 0)
    measured = regimes_of(topology, profile, kind) if terms is None and algorithm is None and protocol is None else None
    chosen = terms or terms_of(profile, comm)
    if kind == "all_to_all":
        found = _all_to_all(topology, comm, chosen, np.asarray(ranks, np.int64), bytes_per_rank / comm.n_ranks)
        return found if measured is None else replace(found, seconds=measured.seconds(bytes_per_rank))
    group = np.sort(np.asarray(ranks, np.int64))
    share = min(slowest_share(topology, group, comm.ring), fabric_share(topology, group, comm.ring))
    found = _reduce_or_gather(comm, chosen, kind, bytes_per_rank, algorithm, protocol, share)
    return found if measured is None else replace(found, seconds=measured.seconds(bytes_per_rank))


@lru_cache(maxsize=4096)
def _reduce_or_gather(
    comm: Communicator,
    terms: Terms,
    kind: str,
    bytes_per_rank: float,
    algorithm: str | None,
    protocol: str | None,
    share: float,
) -> CollectiveEstimate:
    n_bytes = bytes_per_rank * (comm.n_ranks if kind == "all_gather" else 1)
    choice = choose(comm, kind, n_bytes, algorithm, protocol)
    seconds = collective_s(comm, terms, choice, kind, n_bytes, share)
    channels = comm.nvls_channels if choice.algorithm.startswith("NVLS") else comm.n_channels
    return CollectiveEstimate(seconds, choice.algorithm, choice.protocol, channels)


def _all_to_all(
    topology: ClusterTopology, comm: Communicator, terms: Terms, group: IntArray, part: float
) -> CollectiveEstimate:
    wires_s, host_s = (part * seconds for seconds in _busiest_s_per_byte(topology, comm, group))
    seconds = all_to_all_s(comm, terms, part, max(wires_s, host_s * terms.efficiency(comm)))
    return CollectiveEstimate(seconds, SENDS, "", comm.all_to_all_channels(part))


_BUSIEST: dict[Communicator, tuple[float, float]] = {}


def _busiest_s_per_byte(topology: ClusterTopology, comm: Communicator, group: IntArray) -> tuple[float, float]:
    """Time of the busiest wire, and link of the host, for one byte of every pair; alike for groups of a communicator.

    Of a host's links transports reach all that they sustain, so their efficiency is not meant for these.
    """
    if comm not in _BUSIEST:
        if len(_BUSIEST) >= 1024:
            _BUSIEST.clear()
        loads = all_to_all_loads(topology, np.sort(group))
        seconds, host = loads / topology.link_capacities_bytes_per_s, topology.host_links
        _BUSIEST[comm] = float(seconds[~host].max(initial=0.0)), float(seconds[host].max(initial=0.0))
    return _BUSIEST[comm]

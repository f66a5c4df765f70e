"""What transfers occupy on the GPUs at their ends: channels (thread blocks, each on an SM) and memory traffic.

    sms = channels x SMs per channel,        traffic = sent x send traffic + received x receive traffic

Send and receive of one exchange are one kernel, whose channels serve both; factors are the profile's, by kind of link.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cost_models.network.collectives import estimate_collective
from cost_models.network.exchange import flow_channels
from cost_models.network.flows import route_flows
from cost_models.topology import ClusterTopology

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Occupancy:
    """By rank: multiprocessors that communication holds from its start to its end, and bytes of memory traffic."""

    sms: IntArray
    traffic_bytes: FloatArray


def exchange_occupancy(
    topology: ClusterTopology, profile: HardwareProfile, dst: ArrayLike, n_bytes: ArrayLike, largest: float = 1.0
) -> Occupancy:
    """Of a grouped exchange in which rank r sends ``n_bytes`` (of all, or of each) to dst[r]; to itself is nothing.

    ``largest`` is the share of the largest message, as for :func:`cost_models.network.estimate_exchange_s`.

    >>> from cost_models.hardware import load_hardware
    >>> from cost_models.topology import load_topology
    >>> pair = exchange_occupancy(load_topology("hgx-h200", 2), load_hardware("h200-sxm"), [1, 0], 2**28)
    >>> pair.sms.tolist(), pair.traffic_bytes.tolist() == [4 * 2.0**28] * 2
    ([16, 16], True)
    """
    target = np.asarray(dst, np.int64)
    size = np.broadcast_to(np.asarray(n_bytes, np.float64), target.shape)
    sms, traffic = np.zeros(len(target), np.int64), np.zeros(len(target))
    source = np.flatnonzero((target != np.arange(len(target))) & (size > 0))
    if not len(source):
        return Occupancy(sms, traffic)
    routes = route_flows(topology, source, target[source])
    channels = flow_channels(topology, source, target[source], largest * size[source])
    terms = profile.interference
    for number, route in enumerate(routes.classes):
        here = routes.route_class == number
        ranks, sizes = source[here], size[source[here]]
        np.maximum.at(sms, ranks, channels[here] * terms.sms_per_channel)
        np.maximum.at(sms, target[ranks], channels[here] * terms.sms_per_channel)
        np.add.at(traffic, ranks, sizes * terms.send_traffic[route.kind])
        np.add.at(traffic, target[ranks], sizes * terms.receive_traffic[route.kind])
    return Occupancy(sms, traffic)


def collective_occupancy(
    topology: ClusterTopology,
    profile: HardwareProfile,
    kind: str,
    group: IntArray,
    bytes_per_rank: float,
    bytes_sent: float,
) -> tuple[int, float]:
    """Multiprocessors, and bytes of memory traffic of each rank, that sends and receives ``bytes_sent``.

    Parameters
    ----------
    kind, group, bytes_per_rank : as for :func:`cost_models.network.estimate_collective`.
    """
    if len(group) < 2 or not bytes_sent:
        return 0, 0.0
    kinds = {topology.route(int(group[0]), int(rank)).kind for rank in group[1:]}
    terms = profile.interference
    factor = max(terms.send_traffic[each] + terms.receive_traffic[each] for each in kinds)
    channels = estimate_collective(topology, profile, kind, group, bytes_per_rank).channels
    return channels * terms.sms_per_channel, bytes_sent * factor

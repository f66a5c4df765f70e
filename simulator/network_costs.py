"""Prices transfers and collectives: what each rank waits for alone on the links, and what it asks of links.

    device_ns = round(1e9 seconds),  seconds by `cost_models.network`

Every distinct ring and size, and every kind of group that NCCL sets up alike, is priced once.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial

import numpy as np

from cost_models.hardware import HardwareProfile
from cost_models.network import (
    Demand,
    collective_demand,
    estimate_collective_s,
    estimate_exchange_s,
    exchange_demands,
)
from cost_models.topology import ClusterTopology
from simulator.prices import Prices, array_to_ns, shrink
from simulator.program.operations import Collective, Column, Exchange, IntArray, Transfer

MOST_KEYED = 512
"""Ranks up to which exchanges are told by who sends to whom, and prices of uneven ones are kept."""


class NetworkCosts:
    """Costs of communication on a cluster.

    Parameters
    ----------
    topology : where the ranks are.
    profile : the GPU.
    prices : of the same topology and profile, to use and to add to.
    """

    def __init__(self, topology: ClusterTopology, profile: HardwareProfile, prices: Prices) -> None:
        self._topology, self._profile, self._priced = topology, profile, prices.network.times
        self._prices = prices.network
        self._of_splits: dict[Hashable, tuple[IntArray, Column]] = {}  # with the matrix, so that an id names one only

    def exchange_ns(self, work: Exchange) -> Column:
        """Time of what each rank sends."""
        key = _exchange_key(work)
        if key is None or key not in self._priced:
            source = np.arange(work.ring.n_ranks)
            sent = source, work.ring.to, work.bytes
            seconds = estimate_exchange_s(self._topology, self._profile, *sent, largest=work.largest)
            column = shrink(array_to_ns(seconds))
            if key is None:
                return column
            self._priced[key] = column
        return self._priced[key]

    def collective_ns(self, work: Collective) -> Column:
        """Time of a collective, on each rank of its groups."""
        if work.splits is not None:
            return self._all_to_all_v(work)
        if isinstance(work, Transfer):
            return self._transfer(work)
        size = int(np.max(work.bytes))
        key = (work.collective, size, None if work.groups is None else work.groups.tobytes())
        if key not in self._priced:
            groups = group_numbers(work, self._topology.n_ranks)
            kinds, kind_of_group = groups_alike(self._topology, groups)
            seconds = [
                estimate_collective_s(self._topology, self._profile, work.collective, ranks, size) for ranks in kinds
            ]
            self._priced[key] = shrink(array_to_ns(np.array(seconds))[kind_of_group[groups]])
        return self._priced[key]

    def _all_to_all_v(self, work: Collective) -> Column:
        """Flows between all ranks at once; a rank is done when the last flow that it sends or receives is."""
        assert work.splits is not None
        key = (id(work.splits), work.row_bytes)
        if key in self._of_splits:
            return self._of_splits[key][1]
        source, target = work.flows()
        size = work.splits[source, target] * work.row_bytes
        flow_ns = array_to_ns(np.asarray(estimate_exchange_s(self._topology, self._profile, source, target, size)))
        column = np.zeros(len(work.splits), dtype=np.int64)
        np.maximum.at(column, source, flow_ns)
        np.maximum.at(column, target, flow_ns)
        self._of_splits[key] = work.splits, shrink(column)
        return self._of_splits[key][1]

    def _transfer(self, work: Transfer) -> Column:
        """All pairs send at once; both ends of a pair are done at the same time."""
        if work.arrived:
            return 0
        size = int(np.max(work.bytes))
        key = ("send", size, work.to.tobytes())
        if key not in self._priced:
            source = np.flatnonzero(work.to != np.arange(len(work.to)))
            seconds = estimate_exchange_s(self._topology, self._profile, source, work.to[source], size)
            column = np.zeros(len(work.to), dtype=np.int64)
            column[source] = column[work.to[source]] = array_to_ns(seconds)
            self._priced[key] = column
        return self._priced[key]

    def demands(self, work: Exchange | Collective) -> list[Demand | None]:
        """What an exchange asks of the links, by sending rank; a collective, by group; an all_to_all_v, by flow."""
        key, find = self._demand_key(work), partial(self._find_demands, work)
        return find() if key is None else self._prices.demands(key, find)

    def _demand_key(self, work: Exchange | Collective) -> Hashable:
        if isinstance(work, Exchange):
            return _exchange_key(work)
        if work.splits is not None:
            return None
        groups = None if work.groups is None else work.groups.tobytes()
        if isinstance(work, Transfer):
            return "send", np.asarray(work.bytes).tobytes(), work.to.tobytes(), groups, work.arrived
        return work.collective, int(np.max(work.bytes)), groups

    def _find_demands(self, work: Exchange | Collective) -> list[Demand | None]:
        n_ranks = self._topology.n_ranks
        if isinstance(work, Exchange):
            sent = np.arange(n_ranks), work.ring.to, work.bytes
            return exchange_demands(self._topology, self._profile, *sent, largest=work.largest)
        if work.splits is not None:
            source, target = work.flows()
            sizes = work.splits[source, target] * work.row_bytes
            return exchange_demands(self._topology, self._profile, source, target, sizes, together=True)
        if isinstance(work, Transfer) and work.arrived:
            return [None] * (int(group_numbers(work, n_ranks).max()) + 1)
        return self._transfer_demands(work) if isinstance(work, Transfer) else self._collective_demands(work)

    def _transfer_demands(self, work: Transfer) -> list[Demand | None]:
        n_ranks = self._topology.n_ranks
        sent = exchange_demands(self._topology, self._profile, np.arange(n_ranks), work.to, work.bytes)
        groups = group_numbers(work, n_ranks).tolist()
        senders = {group: rank for rank, group in enumerate(groups) if sent[rank]}
        return [sent[senders[group]] if group in senders else None for group in range(max(groups) + 1)]

    def _collective_demands(self, work: Collective) -> list[Demand | None]:
        n_ranks = self._topology.n_ranks
        size, groups = int(np.max(work.bytes)), group_numbers(work, n_ranks)
        seconds = np.broadcast_to(np.asarray(self.collective_ns(work)), n_ranks) / 1e9
        members = [np.flatnonzero(groups == group) for group in range(int(groups.max()) + 1)]
        return [
            collective_demand(self._topology, self._profile, work.collective, ranks, size, float(seconds[ranks[0]]))
            for ranks in members
        ]


def _exchange_key(work: Exchange) -> Hashable:
    """What tells an exchange's price; of many ranks, for which that is long, even exchanges by their ring only."""
    size = work.bytes if isinstance(work.bytes, int) else work.bytes.tobytes()
    if work.ring.n_ranks <= MOST_KEYED:
        return work.ring.to.tobytes(), size, work.largest
    return (work.ring, size, work.largest) if isinstance(size, int) else None


def group_numbers(work: Collective, n_ranks: int) -> IntArray:
    """Group of each rank."""
    return np.zeros(n_ranks, dtype=np.int64) if work.groups is None else work.groups


def groups_alike(topology: ClusterTopology, groups: IntArray) -> tuple[list[IntArray], IntArray]:
    """One group of each kind that NCCL sets up alike, and the kind of each group.

    Groups are alike that have the same local ranks of the same machines, node by node. None are where links are slow,
    or groups are not equally large.
    """
    sizes = np.bincount(groups)
    if topology.slowed or (sizes != sizes[0]).any():
        return [np.flatnonzero(groups == group) for group in range(len(sizes))], np.arange(len(sizes))
    members = np.argsort(groups, kind="stable").reshape(len(sizes), -1)
    node = topology.node_of[members]
    machine, local = np.asarray(topology.machine_of_node)[node], topology.local_rank[members]
    rows = np.concatenate([machine, local, np.diff(node, axis=1) != 0], axis=1)
    _, first, kind = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return [members[index] for index in first.tolist()], kind.reshape(-1)

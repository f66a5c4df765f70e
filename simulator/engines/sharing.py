"""Which transfers of a Program may have to share a link, and what those ask of it.

A lane of a rank sends one thing at a time, so a link is *tight* only if the most that each (lane, rank) ever asks of it
adds up to more than its capacity. Of links that always carry the same transfers (a GPU's way to its port) only the
narrowest can limit. Only tight and narrowest links enter the simulation; a transfer that crosses none takes its time
alone, whatever else happens.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from cost_models.network import Demand
from simulator.engines.flows import Ask
from simulator.engines.shares import SLACK
from simulator.program.operations import Collective, Exchange, Operation, Transfer, Work
from simulator.program.program import Program


class DemandSource(Protocol):
    """What knows the demands of transfers."""

    def demands(self, operation: Operation) -> Sequence[Demand | None]:
        """By sending rank, by group of a collective, or by flow of an all_to_all_v; None where nothing is sent."""


@dataclass(frozen=True)
class Sharing:
    """Transfers of a Program that may share links.

    Attributes
    ----------
    capacities : of all links of the cluster, bytes per second.
    tight : links that may limit.
    """

    capacities: Sequence[float]
    tight: frozenset[int]
    _moving: Mapping[Hashable, tuple[Operation, Sequence[Demand | None]]]
    _asks: dict[Hashable, list[Ask | None]] = field(default_factory=dict)

    @staticmethod
    def find(program: Program, source: DemandSource, capacities: Sequence[float]) -> Sharing:
        """Look through all exchanges and collectives of a Program."""
        distinct = {demand_key(operation): operation for operation in program.operations if _moves(operation)}
        moving = {key: (operation, source.demands(operation)) for key, operation in distinct.items()}
        most, ways = _most_asked(moving.values())
        narrowest = narrowest_links(ways, capacities)
        tight = frozenset(link for link in narrowest if sum(most[link].values()) > capacities[link] * (1 + SLACK))
        return Sharing(capacities, tight, moving)

    def asks(self, operation: Operation) -> Sequence[Ask | None]:
        """By sending rank, group or flow, what it asks for; None where it takes its time alone in any case."""
        key = demand_key(operation)
        if key not in self._moving:
            return ()
        if key not in self._asks:
            self._asks[key] = _asks(*self._moving[key], self.tight)
        return self._asks[key]


def _most_asked(
    moving: Iterable[tuple[Operation, Sequence[Demand | None]]],
) -> tuple[dict[int, dict[tuple[str, int], float]], list[Demand]]:
    """By link, the most that each (lane, rank) ever asks of it; and a demand of each way that any takes."""
    most: dict[int, dict[tuple[str, int], float]] = {}
    ceilings: dict[Hashable, float] = {}
    ways: dict[Hashable, Demand] = {}
    for operation, demands in moving:
        rates: dict[tuple[int, int], float] = {}
        several = _sends_several(operation)
        for rank, demand in zip(_users(operation), demands, strict=True):
            if demand is None:
                continue
            way, ceiling = (demand.links, demand.weights), demand.ceiling_bytes_per_s
            ways.setdefault(way, demand)
            if several or ceiling > ceilings.get((operation.lane, rank, way), 0.0):
                ceilings[operation.lane, rank, way] = ceiling
                for link, weight in zip(*way, strict=True):
                    rates[link, rank] = rates.get((link, rank), 0.0) + weight * ceiling
        for (link, rank), rate in rates.items():
            by = most.setdefault(link, {})
            by[operation.lane, rank] = max(by.get((operation.lane, rank), 0.0), rate)
    return most, list(ways.values())


def narrowest_links(demands: Iterable[Demand | None], capacities: Sequence[float]) -> list[int]:
    """Links that may limit: of those that the same transfers cross, the ones of which no other is narrower for all.

    >>> way = Demand(0.0, 1.0, 1e9, (0, 1, 2), (1.0, 1.0, 1.0))
    >>> narrowest_links([way, Demand(0.0, 1.0, 1e9, (2,), (1.0,))], [5e9, 4e9, 9e9])
    [1, 2]
    """
    shares: dict[int, dict[int, float]] = {}
    for number, demand in enumerate(demands):
        if demand is not None:
            for link, weight in zip(demand.links, demand.weights, strict=True):
                shares.setdefault(link, {})[number] = weight / capacities[link]
    alike: dict[frozenset[int], list[int]] = {}
    for link, by in shares.items():
        kept = alike.setdefault(frozenset(by), [])
        if not any(_is_narrower(shares[other], by) for other in kept):
            kept[:] = [other for other in kept if not _is_narrower(by, shares[other])] + [link]
    return sorted(link for kept in alike.values() for link in kept)


def _is_narrower(one: Mapping[int, float], other: Mapping[int, float]) -> bool:
    """Whether every transfer takes at least as large a share of one link as of another."""
    return all(share >= other[number] for number, share in one.items())


def _moves(operation: Operation) -> bool:
    return isinstance(operation.work, Exchange | Collective)


def demand_key(operation: Operation) -> Hashable:
    """Operations of one key ask for the same."""
    return (operation.lane, transfer_key(operation.work)) if _moves(operation) else None


def transfer_key(work: Work) -> tuple[Hashable, ...]:
    """Equal for exchanges and collectives that send the same between the same ranks."""
    assert isinstance(work, Exchange | Collective)
    size = work.bytes if isinstance(work.bytes, int) else work.bytes.tobytes()
    if isinstance(work, Exchange):
        return work.ring, size, work.largest
    groups, to = work.groups, work.to if isinstance(work, Transfer) else None
    splits = None if work.splits is None else work.splits.tobytes()
    return work.collective, size, *(None if each is None else each.tobytes() for each in (groups, to)), splits


def _users(operation: Operation) -> Sequence[int]:
    """The rank that each transfer of an operation occupies: the sender, or the first of a group."""
    work = operation.work
    if isinstance(work, Exchange):
        return range(len(work.ring.to))
    assert isinstance(work, Collective)
    if work.splits is not None:
        senders: list[int] = work.flows()[0].tolist()
        return senders
    return [0] if work.groups is None else np.unique(work.groups, return_index=True)[1].tolist()


def _sends_several(operation: Operation) -> bool:
    """Whether a rank has several transfers at once, which ask together."""
    return isinstance(operation.work, Collective) and operation.work.splits is not None


def _asks(operation: Operation, demands: Sequence[Demand | None], tight: frozenset[int]) -> list[Ask | None]:
    return [_ask(name, demand, tight) for name, demand in zip(_names(operation, len(demands)), demands, strict=True)]


def _ask(who: str, demand: Demand | None, tight: frozenset[int]) -> Ask | None:
    if demand is None or tight.isdisjoint(demand.links):
        return None
    crosses = tuple(each for each in zip(demand.links, demand.weights, strict=True) if each[0] in tight)
    total_ns = round((demand.overhead_s + demand.moving_s) * 1e9)
    overhead_ns = min(round(demand.overhead_s * 1e9), total_ns)
    return Ask(total_ns - overhead_ns, overhead_ns, demand.ceiling_bytes_per_s, crosses, who)


def _names(operation: Operation, transfers: int) -> list[str]:
    """Its transfers, as users see them: lane and ranks, or collective and group."""
    work = operation.work
    if isinstance(work, Exchange):
        return [f"{work.ring.name} {rank}->{to}" for rank, to in enumerate(work.ring.to.tolist())]
    assert isinstance(work, Collective)
    if work.splits is not None:
        return [f"{operation.kind} {source}->{target}" for source, target in np.stack(work.flows(), axis=1).tolist()]
    return [f"{operation.kind} group {number}" for number in range(transfers)]

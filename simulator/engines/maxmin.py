"""Max-min fair rates of a few flows that share a few links, as an engine needs them over and over.

Progressive filling: all rates grow together; a flow stops at its ceiling, or when a link it crosses is full,

    sum over flows i on link l of weight_il rate_i <= capacity_l.

Shares only grow while flows settle, so a heap of links with stale entries finds the next one. For all flows of a big
network at once see `cost_models.network.fairness`.
Source: Bertsekas and Gallager, Data Networks (1992), section 6.5.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from typing import Protocol

NONE = -1
"""Instead of a link: the flow is at its ceiling."""


class Sharer(Protocol):
    """What competes: its ceiling, and (link, weight) of what it crosses."""

    @property
    def ceiling(self) -> float:
        """The most it can use."""

    @property
    def crosses(self) -> Sequence[tuple[int, float]]:
        """Links, and the capacity it takes there per unit of rate."""


def fill(flows: Sequence[Sharer], capacities: Mapping[int, float]) -> list[tuple[float, int]]:
    """Rate of each flow, and the link that limits it (``NONE`` where its ceiling does).

    Parameters
    ----------
    flows : those that compete; none without a ceiling.
    capacities : of the links that may limit; others that flows cross are ignored.
    """
    on: dict[int, list[int]] = {}
    taken: dict[int, float] = {}
    for number, flow in enumerate(flows):
        for link, weight in flow.crosses:
            if link in capacities:
                on.setdefault(link, []).append(number)
                taken[link] = taken.get(link, 0.0) + weight
    left = {link: capacities[link] for link in on}
    waiting = {link: len(numbers) for link, numbers in on.items()}
    heap = [(left[link] / taken[link], link) for link in on]
    heapify(heap)
    rates: list[tuple[float, int]] = [(-1.0, NONE)] * len(flows)

    def settle(number: int, rate: float, limit: int) -> None:
        rates[number] = (rate, limit)
        for link, weight in flows[number].crosses:
            if link in left:
                left[link] -= weight * rate
                taken[link] -= weight
                waiting[link] -= 1

    by_ceiling = sorted(range(len(flows)), key=lambda number: flows[number].ceiling)
    place = 0
    while place < len(by_ceiling):
        share, link = _next_full(heap, left, taken, waiting)
        ceiling = flows[by_ceiling[place]].ceiling
        if rates[by_ceiling[place]][0] >= 0:
            place += 1
        elif ceiling <= share:
            settle(by_ceiling[place], ceiling, NONE)
        else:
            for number in on[link]:
                if rates[number][0] < 0:
                    settle(number, share, link)
    return rates


def _next_full(
    heap: list[tuple[float, int]], left: Mapping[int, float], taken: Mapping[int, float], waiting: Mapping[int, int]
) -> tuple[float, int]:
    """The link that fills next, and the rate at which it does."""
    while heap:
        share, link = heap[0]
        if not waiting[link]:
            heappop(heap)
            continue
        now = max(left[link], 0.0) / taken[link]
        if now <= share:
            return now, link
        heapreplace(heap, (now, link))
    return float("inf"), NONE

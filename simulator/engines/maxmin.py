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
    """What competes."""

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
    capacities : for them, on the links that may limit; others are ignored.
    """
    left = dict(capacities)
    crossed = [[each for each in flow.crosses if each[0] in left] for flow in flows]
    on: dict[int, list[int]] = {}
    taken: dict[int, float] = {}
    for number, links in enumerate(crossed):
        for link, weight in links:
            if link in on:
                on[link].append(number)
                taken[link] += weight
            else:
                on[link], taken[link] = [number], weight
    waiting = {link: len(numbers) for link, numbers in on.items()}
    heap = [(max(left[link], 0.0) / taken[link], link) for link in on]
    heapify(heap)
    rates: list[tuple[float, int]] = [(-1.0, NONE)] * len(flows)
    for number in sorted(range(len(flows)), key=lambda number: flows[number].ceiling):
        ceiling = flows[number].ceiling
        while rates[number][0] < 0:
            share, link = _next_full(heap, left, taken, waiting)
            full = on[link] if share < ceiling else [number]
            rate = (share, link) if share < ceiling else (ceiling, NONE)
            for each in full:
                if rates[each][0] < 0:
                    rates[each] = rate
                    for crossing, weight in crossed[each]:
                        left[crossing] -= weight * rate[0]
                        taken[crossing] -= weight
                        waiting[crossing] -= 1
    return rates


def _next_full(
    heap: list[tuple[float, int]], left: dict[int, float], taken: dict[int, float], waiting: dict[int, int]
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

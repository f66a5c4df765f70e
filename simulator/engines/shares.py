"""Rates of the flows under way, found anew only for flows whose rates change.

An allocation is max-min fair if every flow is at its ceiling or has a *bottleneck*: a full link on which no flow has
more. So after flows came or went, those that may have lost their bottleneck are given new rates while all others keep
theirs; whoever then has no bottleneck joins them, or has more than somebody whose bottleneck it crosses, until everyone
has one again. Only *tight* links can be full: those on which the ceilings add up to more than the capacity.
Source: Bertsekas and Gallager, Data Networks (1992), section 6.5.2 (bottlenecks characterise the allocation).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from simulator.engines.flows import Flow
from simulator.engines.maxmin import NONE, fill

SLACK = 1e-9
"""Relative difference that sums of rates may have from rounding."""


@dataclass
class Shares:
    """Flows and links.

    Parameters
    ----------
    capacities : of every link.
    """

    capacities: Sequence[float]
    _on: dict[int, dict[Flow, float]] = field(default_factory=dict)
    _demand: dict[int, float] = field(default_factory=dict)
    _load: dict[int, float] = field(default_factory=dict)
    _changed: dict[int, None] = field(default_factory=dict)
    _fresh: dict[Flow, None] = field(default_factory=dict)
    _tight: set[int] = field(default_factory=set)
    _limited: dict[int, int] = field(default_factory=dict)

    def add(self, flow: Flow) -> None:
        """A flow comes; it has a rate after the next `resolve`."""
        self._fresh[flow] = None
        for link, weight in flow.crosses:
            self._on.setdefault(link, {})[flow] = weight
            self._demand[link] = self._demand.get(link, 0.0) + weight * flow.ceiling
            self._load.setdefault(link, 0.0)
            self._note_change(link)

    def set_ceiling(self, flow: Flow, ceiling: float) -> None:
        """A flow may have more, or less, than before."""
        for link, weight in flow.crosses:
            self._demand[link] += weight * (ceiling - flow.ceiling)
            self._note_change(link)
        flow.ceiling = ceiling
        self._fresh[flow] = None

    def remove(self, flow: Flow) -> None:
        """A flow goes."""
        self._fresh.pop(flow, None)
        for link, weight in flow.crosses:
            flows = self._on[link]
            del flows[flow]
            self._demand[link] = self._demand[link] - weight * flow.ceiling if flows else 0.0
            self._load[link] = self._load[link] - weight * flow.rate if flows else 0.0
            self._note_change(link)
        self._set_limit(flow, NONE)

    def _note_change(self, link: int) -> None:
        self._changed[link] = None
        if self._demand[link] > self.capacities[link] * (1 + SLACK):
            self._tight.add(link)
        else:
            self._tight.discard(link)

    def _set_limit(self, flow: Flow, limit: int) -> None:
        if flow.limit != limit:
            self._limited[flow.limit] = self._limited.get(flow.limit, 0) - 1
            self._limited[limit] = self._limited.get(limit, 0) + 1
            flow.limit = limit

    def set_rate(self, flow: Flow, rate: float) -> None:
        """A flow gets a rate that `resolve` found."""
        for link, weight in flow.crosses:
            self._load[link] += weight * (rate - flow.rate)
        flow.rate = rate

    def is_full(self, link: int) -> bool:
        """Whether flows use a link up, and could use more."""
        return link in self._tight and self._load[link] >= self.capacities[link] * (1 - SLACK)

    def resolve(self) -> tuple[list[tuple[Flow, float]], list[int]]:
        """Flows whose rates change, with their new rates; and the links on which anything may have changed."""
        free = dict(self._fresh)
        for link in self._changed:
            if self._limited.get(link):
                free.update({flow: None for flow in self._on[link] if flow.limit == link})
        touched = self._changed
        self._fresh, self._changed = {}, {}
        while True:
            flows = list(free)
            left = self._left_for(flows)
            settled = fill(flows, left)
            missing = dict.fromkeys(self._without_bottleneck(free, settled, left))
            if not missing:
                break
            free.update(missing)
        changes = []
        for flow, (rate, limit) in zip(flows, settled, strict=True):
            self._set_limit(flow, limit)
            if rate != flow.rate:
                changes.append((flow, rate))
        return changes, [*touched, *[link for link in left if link not in touched]]

    def _left_for(self, flows: list[Flow]) -> dict[int, float]:
        """Capacity that all other flows leave to these, on each tight link that they cross."""
        left: dict[int, float] = {}
        tight = self._tight
        for flow in flows:
            for link, weight in flow.crosses:
                if link in left:
                    left[link] += weight * flow.rate
                elif link in tight:
                    left[link] = self.capacities[link] - self._load[link] + weight * flow.rate
        return left

    def _without_bottleneck(
        self, free: dict[Flow, None], settled: list[tuple[float, int]], left: dict[int, float]
    ) -> Iterator[Flow]:
        """Others that have more than one of the free flows at its bottleneck, or have none themselves any more."""
        level: dict[int, float] = {}
        matters = {link for link in left if self._limited.get(link)}
        matters.update([limit for _, limit in settled if limit != NONE])
        most, spare = dict.fromkeys(matters, 0.0), {link: left[link] for link in matters}
        for flow, (rate, limit) in zip(free, settled, strict=True):
            if limit != NONE:
                level[limit] = rate
            for link, weight in flow.crosses:
                if link in matters:
                    most[link] = max(most[link], rate)
                    spare[link] -= weight * rate
        for link in sorted(matters):
            is_full = spare[link] <= self.capacities[link] * SLACK
            too_much = level.get(link, float("inf")) * (1 + SLACK)
            too_little = most[link] * (1 - SLACK) if is_full else float("inf")
            for flow in self._on[link]:
                if (flow.rate > too_much or (flow.limit == link and flow.rate < too_little)) and flow not in free:
                    yield flow

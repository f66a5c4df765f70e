"""Flows that share links over time, apart from any simulation kernel.

A flow moves at a rate that changes only when other flows come or go. It keeps the nanoseconds that it would still need
at its ceiling, so that one which is never slowed ends after exactly its time alone,

    left' = left - (now - since) rate / ceiling,     end = now + left ceiling / rate,

rounded to a nanosecond. Rates are found anew once per instant, and only for the flows that a change can reach: those
connected to it by *tight* links, on which the ceilings of the flows add up to more than the capacity. Links that are
not tight limit nobody.

After its data have left, a flow takes no link for the rest of its time, its overhead: the last byte is on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from simulator.engines.maxmin import fill
from simulator.engines.saturation import Saturation

SLACK = 1e-9
"""Share of a link's capacity that sums of rates may differ by from rounding."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a transfer asks for: its times alone, and what it takes of the links that it may have to share.

    Attributes
    ----------
    moving_ns, overhead_ns : parts of its time alone.
    ceiling : rate alone, bytes per second.
    crosses : (link, weight): at rate x it takes weight x of the link.
    who : a name for it, under which saturated links list it.
    """

    moving_ns: int
    overhead_ns: int
    ceiling: float
    crosses: tuple[tuple[int, float], ...]
    who: str = ""


class Flow:
    """A transfer under way."""

    __slots__ = ("arrived", "ask", "ceiling", "crosses", "end_ns", "left_ns", "rate", "since_ns")

    def __init__(self, ask: Ask, now_ns: int, arrived: Callable[[], object]) -> None:
        self.ask, self.arrived = ask, arrived
        self.ceiling, self.crosses = ask.ceiling, ask.crosses
        self.rate = 0.0
        self.left_ns: float = ask.moving_ns
        self.since_ns, self.end_ns = now_ns, -1

    def advance(self, now_ns: int) -> None:
        """What has moved since the last change."""
        if now_ns > self.since_ns:
            full = self.rate == self.ceiling
            self.left_ns -= (now_ns - self.since_ns) * (1 if full else self.rate / self.ceiling)
            self.since_ns = now_ns

    def due_ns(self) -> int:
        """When its data will have left at the present rate."""
        full = self.rate == self.ceiling
        return self.since_ns + max(round(self.left_ns if full else self.left_ns * self.ceiling / self.rate), 0)


@dataclass
class Network:
    """All flows under way.

    Parameters
    ----------
    capacities : of every link, bytes per second.
    """

    capacities: Sequence[float]
    saturation: Saturation = field(default_factory=Saturation)
    _on: dict[int, dict[Flow, float]] = field(default_factory=dict)
    _demand: dict[int, float] = field(default_factory=dict)
    _changed: dict[int, None] = field(default_factory=dict)
    _fresh: list[Flow] = field(default_factory=list)
    _heap: list[tuple[int, int, Flow, bool]] = field(default_factory=list)
    _pushed: int = 0

    def start(self, ask: Ask, now_ns: int, arrived: Callable[[], object]) -> None:
        """A flow begins; ``arrived`` is called when its last byte is there."""
        flow = Flow(ask, now_ns, arrived)
        self._fresh.append(flow)
        for link, weight in ask.crosses:
            self._on.setdefault(link, {})[flow] = weight
            self._demand[link] = self._demand.get(link, 0.0) + weight * ask.ceiling
            self._changed[link] = None

    @property
    def next_ns(self) -> int | None:
        """When something happens next by itself."""
        while self._heap and self._is_stale(self._heap[0]):
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _is_stale(self, entry: tuple[int, int, Flow, bool]) -> bool:
        time_ns, _, flow, left = entry
        return not left and flow.end_ns != time_ns

    def finish(self, now_ns: int) -> bool:
        """Take away flows whose data have left by now, and report those that have arrived; whether any has left."""
        any_left = False
        while self._heap and self._heap[0][0] <= now_ns:
            entry = heappop(self._heap)
            _, _, flow, left = entry
            if left:
                flow.arrived()
            elif not self._is_stale(entry):
                any_left = True
                self._leave(flow, now_ns)
        return any_left

    def _leave(self, flow: Flow, now_ns: int) -> None:
        self._advance(flow, now_ns)
        flow.end_ns = -1
        for link, weight in flow.crosses:
            flows = self._on[link]
            del flows[flow]
            self._demand[link] = self._demand[link] - weight * flow.ceiling if flows else 0.0
            self._changed[link] = None
        if flow.ask.overhead_ns:
            self._push(now_ns + flow.ask.overhead_ns, flow, left=True)
        else:
            flow.arrived()

    def settle(self, now_ns: int) -> None:
        """Give flows their rates after everything that happened in this instant."""
        reached, links = self._reach()
        rates = fill(reached, {link: self.capacities[link] for link in links}) if reached else []
        for flow, (rate, _) in zip(reached, rates, strict=True):
            self._set_rate(flow, rate, now_ns)
        for flow in self._fresh:
            if not flow.rate:
                self._set_rate(flow, flow.ceiling, now_ns)
        self._note_saturation(links, now_ns)
        self._fresh.clear()
        self._changed.clear()

    def _reach(self) -> tuple[list[Flow], dict[int, None]]:
        """Flows whose rates a change may alter, and the tight links between them."""
        flows: dict[Flow, None] = {}
        links: dict[int, None] = {}
        pending = []
        for link in self._changed:
            if self._is_tight(link):
                pending.append(link)
            elif link in self.saturation.full:  # was tight, and slowed somebody
                pending += self._tight_beyond(self._on[link], flows)
        while pending:
            link = pending.pop()
            if link not in links:
                links[link] = None
                pending += self._tight_beyond(self._on[link], flows)
        return list(flows), links

    def _tight_beyond(self, candidates: dict[Flow, float], flows: dict[Flow, None]) -> list[int]:
        new = [flow for flow in candidates if flow not in flows]
        flows.update(dict.fromkeys(new))
        return [link for flow in new for link, _ in flow.crosses if self._is_tight(link)]

    def _is_tight(self, link: int) -> bool:
        return self._demand[link] > self.capacities[link] * (1 + SLACK)

    def _set_rate(self, flow: Flow, rate: float, now_ns: int) -> None:
        if rate == flow.rate:
            return
        self._advance(flow, now_ns)
        flow.rate = rate
        due_ns = flow.due_ns()
        if due_ns != flow.end_ns:
            flow.end_ns = due_ns
            self._push(due_ns, flow, left=False)

    def _advance(self, flow: Flow, now_ns: int) -> None:
        if flow.rate < flow.ceiling:
            for link, _ in flow.crosses:
                self.saturation.slowed(link, flow.ask.who, flow.since_ns, now_ns)
        flow.advance(now_ns)

    def _push(self, time_ns: int, flow: Flow, *, left: bool) -> None:
        self._pushed += 1
        heappush(self._heap, (time_ns, self._pushed, flow, left))

    def _note_saturation(self, tight: dict[int, None], now_ns: int) -> None:
        for link in self._changed:
            if link in self.saturation.full and link not in tight:
                self.saturation.note(link, is_full=False, now_ns=now_ns)
        for link in tight:
            used = sum([weight * flow.rate for flow, weight in self._on[link].items()])
            self.saturation.note(link, is_full=used >= self.capacities[link] * (1 - SLACK), now_ns=now_ns)

"""Flows that share links over time, apart from any simulation kernel.

A flow (`flows`) moves at a rate that changes only when others come or go (`shares`). Rates are found anew once per
instant. After its data have left, a flow takes no link for the rest of its time, its overhead: the last byte is on its
way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from simulator.engines.flows import Ask, Flow
from simulator.engines.saturation import Saturation
from simulator.engines.shares import Shares


@dataclass
class Network:
    """All flows under way.

    Parameters
    ----------
    capacities : of every link, bytes per second.

    Attributes
    ----------
    under_way : number of flows whose data are moving.
    saturation : what is known of links that were full.
    """

    capacities: Sequence[float]
    saturation: Saturation = field(default_factory=Saturation)
    under_way: int = 0
    _heap: list[tuple[int, int, Flow, bool]] = field(default_factory=list)
    _pushed: int = 0
    _shares: Shares = field(init=False)

    def __post_init__(self) -> None:
        """No flow is under way."""
        self._shares = Shares(self.capacities)

    def start(
        self, ask: Ask, now_ns: int, arrived: Callable[[], object], left: Callable[[Flow], object] | None = None
    ) -> Flow:
        """A flow begins; ``left`` is called when its last byte has left, ``arrived`` when it is there."""
        self.under_way += 1
        flow = Flow(ask, now_ns, arrived, left)
        self._shares.add(flow)
        return flow

    def limit(self, flow: Flow, ceiling: float) -> bool:
        """From now on a flow may have so much; whether that is another rate than before."""
        if flow.ceiling == ceiling:
            return False
        self._shares.set_ceiling(flow, ceiling)
        return True

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, and nothing on its last way."""
        return not self.under_way and not self._heap

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
        self.under_way -= 1
        self._shares.remove(flow)
        if flow.left is not None:
            flow.left(flow)
        if flow.ask.overhead_ns:
            self._push(now_ns + flow.ask.overhead_ns, flow, left=True)
        else:
            flow.arrived()

    def settle(self, now_ns: int) -> None:
        """Give flows their rates after everything that happened in this instant."""
        changes, links = self._shares.resolve()
        for flow, rate in changes:
            self._advance(flow, now_ns)
            self._shares.set_rate(flow, rate)
            due_ns = flow.due_ns()
            if due_ns != flow.end_ns:
                flow.end_ns = due_ns
                self._push(due_ns, flow, left=False)
        for link in links:
            self.saturation.note(link, is_full=self._shares.is_full(link), now_ns=now_ns)

    def _advance(self, flow: Flow, now_ns: int) -> None:
        if flow.rate < flow.ceiling:
            self.saturation.slowed(flow.crosses, flow.ask.who, flow.since_ns, now_ns)
        flow.advance(now_ns)

    def _push(self, time_ns: int, flow: Flow, *, left: bool) -> None:
        self._pushed += 1
        heappush(self._heap, (time_ns, self._pushed, flow, left))

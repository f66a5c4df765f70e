"""A flow: what is left of a transfer, and how quickly that moves.

It keeps the nanoseconds that it would still need alone, so that one which is never slowed ends after exactly that time,

    left' = left - (now - since) rate / alone,     end = now + left alone / rate,       rounded to a nanosecond.

A kernel is a flow too: one that crosses no link, at rate 1 alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from simulator.engines.maxmin import NONE


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
    """A transfer under way.

    Attributes
    ----------
    arrived, left : called when its last byte has arrived, and before when it has left.
    ceiling : the most it may have now: the rate alone, or less beside other work on its GPUs.
    rate, limit : bytes per second, and the link that is its bottleneck (`NONE` at its ceiling).
    left_ns, since_ns : time that it would still need alone, as of ``since_ns``.
    end_ns : when its data will have left at this rate; -1 before they move and once they have left.
    """

    __slots__ = ("arrived", "ask", "ceiling", "crosses", "end_ns", "left", "left_ns", "limit", "rate", "since_ns")

    def __init__(
        self, ask: Ask, now_ns: int, arrived: Callable[[], object], left: Callable[[Flow], object] | None = None
    ) -> None:
        self.ask, self.arrived, self.left = ask, arrived, left
        self.ceiling, self.crosses = ask.ceiling, ask.crosses
        self.rate, self.limit = 0.0, NONE
        self.left_ns: float = ask.moving_ns
        self.since_ns, self.end_ns = now_ns, -1

    def advance(self, now_ns: int) -> None:
        """What has moved since the last change."""
        if now_ns > self.since_ns:
            alone = self.ask.ceiling
            self.left_ns -= (now_ns - self.since_ns) * (1 if self.rate == alone else self.rate / alone)
            self.since_ns = now_ns

    def due_ns(self) -> int:
        """When its data will have left at the present rate."""
        alone = self.ask.ceiling
        return self.since_ns + max(round(self.left_ns if self.rate == alone else self.left_ns * alone / self.rate), 0)

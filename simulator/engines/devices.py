"""The GPUs of a discrete-event run: who runs on each, and how fast (the law is `interference`'s).

Whatever is under way keeps the nanoseconds that it would still need alone, and a speed that changes only when something
else on its GPUs begins or ends:

    left' = left - (now - since) speed,     end = now + left / speed,       rounded to a nanosecond

so that what is never slowed ends after exactly its time alone. All changes of an instant are taken together, after
everything else that happens then; what cannot change a speed is none (nothing asks for more than memory sustains, so
that what is alone is never slowed, and nobody gains by an end where nobody is slowed).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from simulator.engines.flows import Flow
from simulator.engines.fluid import Network
from simulator.engines.planner import Use

ROUNDING_NS = 1.0
"""Events happen at whole nanoseconds: what is less than one before an event is there."""


class Due(Protocol):
    """An event at a time that may change."""

    @property
    def processed(self) -> bool:
        """Whether it has happened."""

    def moved(self, at_ns: int) -> Any:
        """The same, at another time; those that wait for it wait for that."""


class Clock(Protocol):
    """What makes events."""

    @property
    def now_ns(self) -> int:
        """The time."""

    def at(self, time_ns: int) -> Any:
        """A `Due` event."""

    def settle_later(self) -> None:
        """Have `Devices.settle` called at the end of this instant."""


class Moving(Protocol):
    """Communication whose data move."""

    def set_speed(self, speed: float, now_ns: int) -> None:
        """From now on it goes so fast, relative to alone."""


class Work:
    """A kernel, or a transfer that shares no links.

    Attributes
    ----------
    due : its end.
    left_ns, since_ns : time that it would still need alone, as of ``since_ns``.
    """

    __slots__ = ("due", "left_ns", "since_ns", "speed")

    def __init__(self, alone_ns: int, clock: Clock) -> None:
        self.left_ns: float = alone_ns
        self.since_ns, self.speed = clock.now_ns, 1.0
        self.due = clock.at(self.since_ns + alone_ns)

    def set_speed(self, speed: float, now_ns: int) -> None:
        """From now on it goes so fast."""
        if speed != self.speed:
            self.left_ns = self.left_at(now_ns)
            self.since_ns, self.speed = now_ns, speed
            self.due = self.due.moved(now_ns + max(round(self.left_ns / speed), 0))

    def left_at(self, now_ns: int) -> float:
        """Time that it would still need alone."""
        return self.left_ns - (now_ns - self.since_ns) * self.speed


class Kernel(Work):
    """A compute operation: one kernel, or several one after the other.

    Attributes
    ----------
    use, rank : what it takes of its GPU, and which that is.
    start_ns : when it began.
    unseen : multiprocessors taken since it handed out its last blocks, which slows those no more.
    """

    __slots__ = ("_alone_ns", "_next", "_next_left_ns", "rank", "start_ns", "unseen", "use")

    def __init__(self, alone_ns: int, clock: Clock, use: Use, rank: int) -> None:
        super().__init__(alone_ns, clock)
        self.use, self.rank, self.unseen, self.start_ns = use, rank, 0, self.since_ns
        self._alone_ns, self._next_left_ns = alone_ns, 0.0
        self._next: Any = None

    def handed_out(self, clock: Clock) -> Any:
        """The event that the blocks which it is handing out are gone; None where it hands out none."""
        if self._next is None or self._next.processed:
            left_ns = self.left_at(clock.now_ns)
            until_ns = self._hands_out_until(left_ns)
            if until_ns is None:
                return None
            self._next_left_ns = until_ns
            self._next = clock.at(clock.now_ns + round((left_ns - until_ns) / self.speed))
        return self._next

    def is_in_tail(self, now_ns: int) -> bool:
        """Whether it has handed out its last blocks."""
        handing = self.use.handing(self.rank)
        return not handing or self.left_at(now_ns) <= self._alone_ns * (1 - handing[-1][1]) + ROUNDING_NS

    def set_speed(self, speed: float, now_ns: int) -> None:
        """From now on it goes so fast."""
        if speed != self.speed:
            super().set_speed(speed, now_ns)
            if self._next is not None and not self._next.processed:
                rest_ns = max((self.left_ns - self._next_left_ns) / speed, 0.0)
                self._next = self._next.moved(now_ns + round(rest_ns))

    def _hands_out_until(self, left_ns: float) -> float | None:
        """What will be left when it has handed out the blocks that it is handing out; None where that is none."""
        for begin, until in self.use.handing(self.rank):
            first_ns, last_ns = self._alone_ns * (1 - begin), self._alone_ns * (1 - until)
            if last_ns + ROUNDING_NS < left_ns <= first_ns:
                return last_ns
        return None


@dataclass(slots=True, eq=False)
class SharedMoving:
    """A flow on shared links, which its GPUs may slow."""

    flow: Flow
    network: Network

    def set_speed(self, speed: float, _: int) -> None:
        """From now on it may have so much."""
        self.network.limit(self.flow, self.flow.ask.ceiling * speed)


@dataclass(slots=True)
class _Device:
    kernel: Kernel | None = None
    taken: int = 0
    moving: dict[Moving, float] = field(default_factory=dict)
    stretch: float = 1.0
    leaves: float = 1.0


class Devices:
    """All GPUs.

    Parameters
    ----------
    n_ranks : their number.
    clock : makes events.
    memory_bytes_per_s : what a GPU's memory sustains.
    communication_first : whether communication gets its multiprocessors at once.
    """

    def __init__(self, n_ranks: int, clock: Clock, memory_bytes_per_s: float, communication_first: bool) -> None:
        self._clock, self._memory, self.communication_first = clock, memory_bytes_per_s, communication_first
        self._devices = [_Device() for _ in range(n_ranks)]
        self._ranks_of: dict[Moving, Sequence[int]] = {}
        self._changed: dict[int, None] = {}
        self._fresh: dict[Moving, None] = {}

    def start_kernel(self, rank: int, alone_ns: int, use: Use) -> Kernel:
        """A kernel starts."""
        kernel = Kernel(alone_ns, self._clock, use, rank)
        device = self._devices[rank]
        device.kernel = kernel
        if device.taken or device.moving:
            self._change(rank)
        return kernel

    def end_kernel(self, rank: int) -> None:
        """The kernel has ended."""
        device = self._devices[rank]
        device.kernel = None
        if device.stretch > 1.0 or device.leaves < 1.0:
            self._change(rank)

    def room(self, rank: int) -> Any:
        """The event that a kernel has handed out its blocks, for which communication has to wait; None where not."""
        kernel = self._devices[rank].kernel
        return None if kernel is None or self.communication_first else kernel.handed_out(self._clock)

    def take(self, rank: int, sms: int) -> None:
        """Communication holds so many multiprocessors more."""
        device, now_ns = self._devices[rank], self._clock.now_ns
        device.taken += sms
        kernel = device.kernel
        if kernel is not None:
            if (now_ns > kernel.start_ns or not self.communication_first) and kernel.is_in_tail(now_ns):
                kernel.unseen += sms
            self._change(rank)

    def give_back(self, rank: int, sms: int) -> None:
        """Communication no longer holds them."""
        device = self._devices[rank]
        device.taken -= sms
        if device.kernel is not None:
            device.kernel.unseen = min(device.kernel.unseen, device.taken)
            self._change(rank)

    def move(self, moving: Moving, traffic: Sequence[tuple[int, float]]) -> None:
        """Data begin to move, with so much memory traffic (bytes per second alone) on each of these ranks."""
        self._ranks_of[moving] = [rank for rank, _ in traffic]
        self._fresh[moving] = None
        for rank, rate in traffic:
            device = self._devices[rank]
            device.moving[moving] = rate
            if device.kernel is not None or len(device.moving) > 1:
                self._change(rank)

    def rest(self, moving: Moving) -> None:
        """Data have arrived."""
        self._fresh.pop(moving, None)
        for rank in self._ranks_of.pop(moving):
            device = self._devices[rank]
            del device.moving[moving]
            if device.stretch > 1.0:
                self._change(rank)

    def _change(self, rank: int) -> None:
        if not self._changed:
            self._clock.settle_later()
        self._changed[rank] = None

    def settle(self) -> None:
        """Give everything on GPUs that have changed in this instant its speed."""
        now_ns, affected = self._clock.now_ns, self._fresh
        for rank in self._changed:
            device = self._devices[rank]
            kernel, stretch = device.kernel, 1.0
            if device.moving:
                wanted = sum(device.moving.values()) + (kernel.use.traffic[rank] if kernel else 0.0)
                stretch = max(1.0, wanted / self._memory)
            leaves = kernel.use.leaves if kernel else 1.0
            if (stretch, leaves) != (device.stretch, device.leaves):
                device.stretch, device.leaves = stretch, leaves
                affected.update(dict.fromkeys(device.moving))
            if kernel is not None:
                taken = device.taken - kernel.unseen
                kernel.set_speed(1.0 / max(kernel.use.slowdown(taken)[rank] if taken else 1.0, stretch), now_ns)
        for moving in affected:
            ends = [self._devices[rank] for rank in self._ranks_of[moving]]
            moving.set_speed(min([each.leaves / each.stretch for each in ends]), now_ns)
        self._changed, self._fresh = {}, {}

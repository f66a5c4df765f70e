"""What lanes wait for: what happens once, how far a lane is, the end of an instant, a time that may change."""

from __future__ import annotations

import simpy
from simpy.events import EventPriority

AFTER_ALL_ELSE = EventPriority(2)
"""Priority of an event at the end of an instant; SimPy's own are 0 and 1."""


class Flag:
    """Something that happens once; an event exists only if somebody waits."""

    __slots__ = ("event", "happened")

    def __init__(self) -> None:
        self.happened = False
        self.event: simpy.Event | None = None

    def wait(self, env: simpy.Environment) -> simpy.Event:
        """An event for it."""
        if self.event is None:
            self.event = simpy.Event(env)
        return self.event

    def set(self) -> None:
        """It has happened."""
        self.happened = True
        if self.event is not None:
            self.event.succeed()


class Progress:
    """How far a lane of one rank is: the number of the last operation it has finished."""

    __slots__ = ("done", "waiting")

    def __init__(self) -> None:
        self.done = -1
        self.waiting: list[tuple[int, simpy.Event]] = []

    def wait(self, env: simpy.Environment, number: int) -> simpy.Event:
        """An event for operation ``number`` being finished."""
        event = simpy.Event(env)
        self.waiting.append((number, event))
        return event

    def advance(self, number: int) -> None:
        """Operation ``number`` is finished."""
        self.done = number
        if self.waiting:
            still: list[tuple[int, simpy.Event]] = []
            for wanted, event in self.waiting:
                if wanted <= number:
                    event.succeed()
                else:
                    still.append((wanted, event))
            self.waiting = still


class Late(simpy.Event):
    """An event at the end of the present instant."""

    def __init__(self, env: simpy.Environment) -> None:
        super().__init__(env)
        self._ok, self._value = True, None
        env.schedule(self, priority=AFTER_ALL_ELSE)


class Due(simpy.Event):
    """An event at a time that may change."""

    def __init__(self, env: simpy.Environment, at_ns: int) -> None:
        super().__init__(env)
        self._ok, self._value = True, None
        env.schedule(self, delay=at_ns - int(env.now))

    def moved(self, at_ns: int) -> Due:
        """The same at another time; who waits for this one waits for that."""
        other = Due(self.env, at_ns)
        other.callbacks, self.callbacks = self.callbacks, []
        return other

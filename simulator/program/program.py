"""A Program that is kept: the events of a recording, which can be passed on to any other sink."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from simulator.program.operations import Buffer, Operation
from simulator.program.setup import Ranks, Setup
from simulator.program.tape import Sink


class Replayed(Protocol):
    """What can be passed on to a sink again and again: a Program that is kept, or one that is recorded anew."""

    @property
    def setup(self) -> Setup | Ranks:
        """The ranks."""

    def replay(self, sink: Sink) -> None:
        """Pass everything on."""


@dataclass
class Program:
    """A recorded Program, kept. ``events`` are (verb, subject) in issue order, the verbs those of a sink."""

    setup: Setup | Ranks
    events: list[tuple[str, Buffer | Operation]] = field(default_factory=list)
    outputs: dict[str, Buffer] = field(default_factory=dict)

    def allocate(self, buffer: Buffer) -> None:
        """Keep the event."""
        self.events.append(("allocate", buffer))

    def release(self, buffer: Buffer) -> None:
        """Keep the event."""
        self.events.append(("release", buffer))

    def operation(self, operation: Operation) -> None:
        """Keep the event."""
        self.events.append(("operation", operation))

    def finish(self, outputs: dict[str, Buffer]) -> None:
        """Keep the outputs."""
        self.outputs = outputs

    @property
    def operations(self) -> list[Operation]:
        """The operations, in issue order."""
        return [subject for _, subject in self.events if isinstance(subject, Operation)]

    def replay(self, sink: Sink) -> None:
        """Pass everything on to another sink."""
        for verb, subject in self.events:
            getattr(sink, verb)(subject)
        sink.finish(self.outputs)


@dataclass
class Streamed:
    """A Program that is recorded anew whenever it is passed on."""

    setup: Setup
    record: Callable[[Sink], None]

    def replay(self, sink: Sink) -> None:
        """Record it."""
        self.record(sink)

"""One recording for several sinks, and the progress of a long one."""

from __future__ import annotations

from collections.abc import Callable

from simulator.program.operations import Buffer, Operation
from simulator.program.tape import Ignore, Sink


class Fanout:
    """A sink that passes everything on to others, but for what they ignore.

    Parameters
    ----------
    sinks : in the order in which they are told.
    on_step : called with phase and step whenever another step begins.
    """

    def __init__(self, *sinks: Sink, on_step: Callable[[str, int], None] | None = None) -> None:
        self._sinks, self._on_step = sinks, on_step
        self._allocate = [sink.allocate for sink in sinks if type(sink).allocate is not Ignore.allocate]
        self._release = [sink.release for sink in sinks if type(sink).release is not Ignore.release]
        self._operation = [sink.operation for sink in sinks if type(sink).operation is not Ignore.operation]
        self._place: tuple[str, int] | None = None

    def allocate(self, buffer: Buffer) -> None:
        """Pass it on."""
        for allocate in self._allocate:
            allocate(buffer)

    def release(self, buffer: Buffer) -> None:
        """Pass it on."""
        for release in self._release:
            release(buffer)

    def operation(self, operation: Operation) -> None:
        """Pass it on."""
        for each in self._operation:
            each(operation)
        if self._on_step is not None:
            place = operation.phase, operation.step
            if place != self._place:
                self._place = place
                self._on_step(*place)

    def finish(self, outputs: dict[str, Buffer]) -> None:
        """Pass it on."""
        for sink in self._sinks:
            sink.finish(outputs)

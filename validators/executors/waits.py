"""What an operation waits for on one rank, by the rules of `simulator.program.tape`, as lane and operation number.

That lanes run in order, and that the host issues in order, is not in here: both are in the nature of a stream, a thread
and a process. Only operations in which the rank takes part are to be given; a lane then needs no more than the number
of the last one to wait for.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from simulator.program.operations import COMPUTE, Buffer, Operation

Wait = tuple[str, int]


@dataclass(slots=True)
class _Uses:
    """The last operation that wrote a buffer on a communication lane, and the last readers since the beginning."""

    written: Wait | None = None
    read: dict[str, int] = field(default_factory=dict)


class Waits:
    """The rules 3 to 5, for one rank."""

    def __init__(self) -> None:
        self._last_compute: int | None = None
        self._uses: dict[int, _Uses] = {}

    def issue(self, operation: Operation) -> list[Wait]:
        """(lane, operation) that this one waits for; it is the next that the rank issues."""
        lane = operation.lane
        waits = self._of(operation)
        if lane == COMPUTE:
            self._last_compute = operation.id
        else:
            for buffer in operation.reads:
                self._uses.setdefault(buffer.id, _Uses()).read[lane] = operation.id
            for buffer in operation.writes:
                self._uses.setdefault(buffer.id, _Uses()).written = lane, operation.id
        return waits

    def release(self, buffer: Buffer) -> list[Wait]:
        """The communication that used the buffer, which is now forgotten."""
        uses = self._uses.pop(buffer.id, None)
        if uses is None:
            return []
        return [*uses.read.items(), *([uses.written] if uses.written else [])]

    def _of(self, operation: Operation) -> list[Wait]:
        lane = operation.lane
        latest: dict[str, int] = {}
        if lane != COMPUTE and self._last_compute is not None:
            latest[COMPUTE] = self._last_compute
        for buffer in (*operation.reads, *operation.writes):
            uses = self._uses.get(buffer.id)
            if uses and uses.written:
                _later(latest, *uses.written)
        for buffer in operation.writes:
            uses = self._uses.get(buffer.id)
            for reader, number in uses.read.items() if uses else ():
                _later(latest, reader, number)
        latest.pop(lane, None)
        return list(latest.items())


def _later(latest: dict[str, int], lane: str, number: int) -> None:
    latest[lane] = max(latest.get(lane, -1), number)

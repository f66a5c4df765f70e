"""Who waits for whom when a run does not end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from simulator.engines.planner import Task
from simulator.program.operations import Operation


@dataclass(frozen=True)
class Stall:
    """A rank that has begun to communicate and waits for others to join."""

    rank: int
    waits_for: tuple[int, ...]
    operation: Operation

    def __str__(self) -> str:
        """For users."""
        who = ", ".join(map(str, self.waits_for[:4])) + (" and others" if len(self.waits_for) > 4 else "")
        where = f"{self.operation.kind} {self.operation.step} ({self.operation.phase}, {self.operation.lane})"
        return f"rank {self.rank} waits for rank {who} in {where}"


class StalledError(RuntimeError):
    """A run that does not end.

    Attributes
    ----------
    stalls : who waits for whom, in issue order.
    """

    def __init__(self, stalls: Sequence[Stall]) -> None:
        super().__init__("operations wait for each other: " + "; ".join(map(str, stalls[:8])))
        self.stalls = tuple(stalls)


def find_stalls(tasks: Sequence[Task]) -> list[Stall]:
    """Ranks whose communication has begun and will not end, from the times of a run that stands still."""
    return [
        Stall(rank, others, task.operation)
        for task in tasks
        if task.to or task.group
        for rank in range(len(task.start_ns))
        if task.start_ns[rank] >= 0 and task.end_ns[rank] < 0
        for others in [tuple(_missing(task, rank))]
    ]


def _missing(task: Task, rank: int) -> Iterator[int]:
    ranks = task.operation.ranks
    if task.group:
        for other, group in enumerate(task.group):
            if group == task.group[rank] and task.start_ns[other] < 0 and (ranks is None or ranks[other]):
                yield other
    elif task.start_ns[task.to[rank]] < 0:
        yield task.to[rank]
    else:
        yield task.source[rank]

"""Interference in max-plus: how long operations last beside others, found event by event on ranks that are alike.

What happens on a GPU until a time depends on nothing later, so durations beside other work are found from front to back
(`des`, on one of each class of ranks that are alike), once, and not by passes over the whole Program: those would price
what overlaps at wrong times by what it overlapped there, and over many layers never settle. From ready, start and
arrival follow the durations with which the recurrence of `maxplus` gives the same times to the nanosecond:

    kernel            end - ready
    exchange, rank r  arrival of what r sends - max(ready_r, ready_to(r))
    collective        end - max over the group of ready
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulator.engines.alike import Alike
from simulator.engines.costs import Observer
from simulator.engines.des import DiscreteEvents
from simulator.engines.interference import SharedCosts
from simulator.engines.planner import Task
from simulator.program.operations import Column, IntArray, Operation
from simulator.program.program import Replayed


class Stretched:
    """A Program's times beside other work, and costs with which `MaxPlus` gives them.

    Parameters
    ----------
    program : what runs.
    costs : its prices.
    alike : ranks that are alike.

    Attributes
    ----------
    makespan_ns : of the Program.
    """

    def __init__(self, program: Replayed, costs: SharedCosts, alike: Alike) -> None:
        self._costs, self._alike = costs, alike
        self._engine = DiscreteEvents(program, costs, shared=costs, alike=alike)
        self.makespan_ns = self._engine.run()

    @property
    def tasks(self) -> Sequence[Task]:
        """Operations, as they ran; by class of ranks."""
        return self._engine.tasks

    def spread(self, per_class: Sequence[int] | IntArray) -> IntArray:
        """A column over ranks."""
        return np.asarray(per_class, dtype=np.int64)[self._alike.of]

    @property
    def finish_ns(self) -> IntArray:
        """When each rank's last operation ends."""
        ends = np.array([task.end_ns for task in self._engine.tasks], dtype=np.int64)
        last: IntArray = ends.max(axis=0, initial=0)
        return last[self._alike.of]

    def report(self, observer: Observer) -> None:
        """Tell of every operation when it ran."""
        self._engine.report(observer)

    def host_ns(self, operation: Operation) -> Column:
        """As it is."""
        return self._costs.host_ns(operation)

    def device_ns(self, operation: Operation) -> Column:
        """Stretched."""
        return self._alike.spread(_durations(self._engine.tasks[operation.id]))


def _durations(task: Task) -> list[int]:
    """What max-plus has to be told of a task, by class."""
    ready = task.ready_ns
    if task.to:
        pairs = zip(task.arrived_ns, ready, task.to, strict=True)
        return [max(arrived - max(mine, ready[to]), 0) for arrived, mine, to in pairs]
    if task.group:
        latest: dict[int, int] = {}
        for group, at_ns in zip(task.group, ready, strict=True):
            latest[group] = max(latest.get(group, -1), at_ns)
        return [max(end - latest[group], 0) for end, group in zip(task.end_ns, task.group, strict=True)]
    return [max(end - mine, 0) for end, mine in zip(task.end_ns, ready, strict=True)]

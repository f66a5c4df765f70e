"""What an engine asks of a cost model, and what it tells an observer."""

from __future__ import annotations

from typing import Protocol

from simulator.program.operations import Column, Operation


class Costs(Protocol):
    """Prices operations in integer nanoseconds, per rank or the same for all."""

    def host_ns(self, operation: Operation) -> Column:
        """Time the host needs to issue it."""

    def device_ns(self, operation: Operation) -> Column:
        """Time it takes on its lane; of an exchange, from when both ends are there until what a rank sends arrives."""


class Observer(Protocol):
    """Is told of every operation, in issue order."""

    def observe(self, operation: Operation, start_ns: Column, end_ns: Column) -> None:
        """When it ran on each rank; meaningless on ranks that take no part."""


class Scaled:
    """Costs multiplied by whole numbers; both engines then multiply every time."""

    def __init__(self, costs: Costs, factor: int) -> None:
        self._costs, self._factor = costs, factor

    def host_ns(self, operation: Operation) -> Column:
        """Factor times the host's time."""
        return self._costs.host_ns(operation) * self._factor

    def device_ns(self, operation: Operation) -> Column:
        """Factor times the device's time."""
        return self._costs.device_ns(operation) * self._factor

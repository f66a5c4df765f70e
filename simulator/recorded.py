"""What of a simulation no cost changes, remembered: the Program, memory, traffic and balance.

Who asks again with other rates (a slider, a factor of ``--what-if``) records nothing anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import NamedTuple

from simulator.engines.balance import Balance
from simulator.engines.memory import Memory
from simulator.engines.traffic import Traffic
from simulator.program.program import Program

MOST_OPERATIONS = 100_000
"""Of all Programs that are kept: some hundred megabytes on 16 ranks."""


class Recorded(NamedTuple):
    """A Program, and what was collected while it was followed."""

    program: Program
    memory: Memory
    traffic: Traffic
    balance: Balance


class Recordings:
    """Recordings by what was recorded, the oldest forgotten first.

    Parameters
    ----------
    most_operations : of all kept Programs together; the latest is kept in any case.

    Attributes
    ----------
    made : how often something was recorded.
    """

    def __init__(self, most_operations: int = MOST_OPERATIONS) -> None:
        self._most, self._operations, self.made = most_operations, 0, 0
        self._kept, self._lock = OrderedDict[Hashable, Recorded](), Lock()

    def find(self, what: Hashable, record: Callable[[], Recorded]) -> Recorded:
        """What was recorded before, or now."""
        with self._lock:
            found = self._kept.get(what)
            if found is None:
                found = self._kept[what] = record()
                self.made += 1
                self._operations += len(found.program.operations)
            self._kept.move_to_end(what)
            while self._operations > self._most and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._operations -= len(oldest.program.operations)
            return found

"""How long GPUs have worked without a rest before an operation: the power limit counts it (`cost_models.kernels`).

    worked = sum of the compute lane's operations issued before, on the middle rank,    in steps of `STEPS_S`

The middle rank has about the mean work also where early ranks have less (contiguous causal). Steps, because every
distinct worked time is a price of its own; they are close where the slow control of power acts. Gaps do not count as
rests: a GPU that waits for a link for long would cool down, and is priced as if it had not.
"""

from __future__ import annotations

from bisect import bisect_right

from simulator.program.operations import COMPUTE, Column, Operation

STEPS_S = (0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 0.8, 0.92, 1.04)


class Worked:
    """Work before each operation of one Program, whose operations are first seen in issue order."""

    def __init__(self) -> None:
        self._total_s = 0.0
        self._last = -1
        self._from_id = [0]

    def before_s(self, operation: Operation) -> float:
        """Seconds worked before an operation, rounded down to a step."""
        return STEPS_S[bisect_right(self._from_id, operation.id) - 1]

    @property
    def settled_at(self) -> int | None:
        """Number of the operation from which on no more work makes a difference; None where there is none yet."""
        return self._from_id[-1] if len(self._from_id) == len(STEPS_S) else None

    def add(self, operation: Operation, device_ns: Column) -> None:
        """An operation was priced; what is seen again does not count again."""
        if operation.id <= self._last or operation.lane != COMPUTE or len(self._from_id) == len(STEPS_S):
            return
        self._last = operation.id
        self._total_s += on_middle_ns(device_ns) / 1e9
        while len(self._from_id) < len(STEPS_S) and self._total_s >= STEPS_S[len(self._from_id)]:
            self._from_id.append(operation.id + 1)


def on_middle_ns(column: Column) -> int:
    """On the rank whose work is counted."""
    return column if isinstance(column, int) else int(column[len(column) // 2])

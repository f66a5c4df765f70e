"""How evenly attention is spread: attended pairs of each rank, in each step.

    rank imbalance   max over ranks / mean over ranks of a rank's pairs: of all its steps together
    step imbalance   sum over steps of the max over ranks / sum of the means: what it costs if every step waits for its
                     slowest rank

Both are 1 where all ranks have the same work in every step. Forward passes are counted, heads weighted.
"""

from __future__ import annotations

import numpy as np

from simulator.program.operations import Attention, IntArray, Operation
from simulator.program.program import Program
from simulator.program.tape import Ignore


class Balance(Ignore):
    """A sink that keeps pairs by rank, and of every step only the most of any rank.

    Attributes
    ----------
    pairs : pairs times heads of each rank.
    """

    def __init__(self, n_ranks: int) -> None:
        self.pairs = np.zeros(n_ranks)  # not whole numbers: pairs of 10^9 tokens times heads leave 64 bits
        self._step = np.zeros(n_ranks)
        self._number: int | None = None
        self._most = 0.0

    def operation(self, operation: Operation) -> None:
        """Add it up."""
        work = operation.work
        if not isinstance(work, Attention) or work.direction != "forward":
            return
        if operation.step != self._number:
            self._close()
            self._number = operation.step
        pairs = np.asarray(work.lowering.pairs, dtype=np.float64) * work.heads
        self.pairs += pairs
        self._step += pairs

    def _close(self) -> None:
        self._most += float(self._step.max())
        self._step[:] = 0

    @property
    def ranks(self) -> float:
        """Most over mean of the ranks' pairs; 1 where there are none."""
        return float(self.pairs.max() / self.pairs.mean()) if self.pairs.any() else 1.0

    @property
    def steps(self) -> float:
        """Sum of the most of each step over the mean of the ranks' pairs; 1 where there are none."""
        return float((self._most + self._step.max()) / self.pairs.mean()) if self.pairs.any() else 1.0


def pairs_by_step(program: Program) -> IntArray:
    """Attended pairs per head and batch row of a forward pass: [steps, ranks]."""
    steps: dict[int, IntArray] = {}
    for operation in program.operations:
        work = operation.work
        if isinstance(work, Attention) and work.direction == "forward":
            row = steps.setdefault(operation.step, np.zeros(program.setup.n_ranks, dtype=np.int64))
            row += work.lowering.pairs
    return np.array([steps[step] for step in sorted(steps)])

"""A schedule that is being measured, and the operations of a call as they ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simulator.engines.rows import Rows
from simulator.program.program import Program
from simulator.schedules import Schedule
from traces.timeline import Timeline
from validators.executors.distributed import RankExecutor
from validators.peers.executor import PeerExecutor
from validators.validation.runs import MeasuredRun


@dataclass
class Candidate:
    """A schedule that is being measured."""

    schedule: Schedule
    program: Program
    executor: RankExecutor | PeerExecutor
    run: MeasuredRun
    samples_ns: list[int]
    issued_ns: list[int]

    @property
    def alive(self) -> bool:
        """Whether it is right so far, and can be timed."""
        return self.run.outcome == "measured"


def measured_timeline(program: Program, spans_ns: Sequence[Mapping[int, tuple[int, int]]]) -> Timeline:
    """The operations of a Program as they ran, with the numbers and names that a simulation gives them.

    Parameters
    ----------
    spans_ns : (start, end) of each operation, for each rank.
    """
    n_ranks = len(spans_ns)
    rows, last_end = Rows(n_ranks), {}
    for operation in program.operations:
        pairs = np.array([spans.get(operation.id, (0, 0)) for spans in spans_ns], dtype=np.int64)
        # Timestamps of one stream may go back by their resolution.
        start = np.maximum(np.maximum(pairs[:, 0], 0), last_end.get(operation.lane, 0))
        end = np.maximum(pairs[:, 1], start)
        took_part = np.array([operation.id in spans for spans in spans_ns])
        rows.observe(operation, start, end)
        last_end[operation.lane] = np.where(took_part, end, last_end.get(operation.lane, 0))
    return rows.timeline({"engine": "measured"})

"""What each operation's measured time consists of, so that the engine's rules give it back.

    base       the latest of: its issue, the end of its lane's last row, what it waits for          (the rules)
    gap        start - base: the part that nothing explains (what the GPU takes to begin)
    work       end - start; of communication, end - T with T the start of the last rank that takes part

The gap of communication is T - the latest base of its ranks. Of an exchange rank r sees only when the later of what it
sends and what it receives has arrived, so that skew between ranks hides what each transfer takes. With T_r the later
start of r and its receiver, it is taken as the least that both ends allow:

    work_r = min over q in {r, to(r)} of end_q - max(T_q, T_source(q))        exact where all links are alike

and what then lacks until end_r is gap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simulator.traced.issues import Issue
from simulator.traced.merge import Step
from traces.launches import Communication
from traces.timeline import Timeline

IntArray = NDArray[np.int64]


@dataclass
class StepTimes:
    """Columns over all ranks, 0 where a rank takes no part."""

    host_ns: IntArray
    gap_ns: IntArray
    work_ns: IntArray


@dataclass
class Clock:
    """How far each rank is, in measured time.

    Attributes
    ----------
    contradicted_ns : time by which rows began before what they should have waited for, in all.
    """

    timeline: Timeline
    compute_lanes: Sequence[int]
    host_ns: list[int] = field(init=False)
    contradicted_ns: int = 0

    def __post_init__(self) -> None:
        n = self.timeline.n_ranks
        self.host_ns = [0] * n
        self._computed = [0] * n
        self._lanes: list[dict[int, int]] = [{} for _ in range(n)]

    def take(self, step: Step, communication: Communication | None, waited: Sequence[Mapping[int, int]]) -> StepTimes:
        """Advance by one step, and say what its times consist of; ``waited``: ends, by rank, of what it waits for."""
        n = self.timeline.n_ranks
        times = StepTimes(*(np.zeros(n, dtype=np.int64) for _ in range(3)))
        base = {rank: self._base(rank, issue, waited, times) for rank, issue in step.issues.items()}
        if step.operation < 0:
            self._synchronise(step, base, times)
        elif self.timeline.operations[step.operation].category != "communication":
            for rank, issue in step.issues.items():
                self._split(rank, base[rank], self._start(issue), issue.end_ns, times)
        elif communication is not None and communication.to is not None:
            self._exchange(step, base, communication.to, times)
        else:
            self._collective(step, base, communication, times)
        for rank, issue in step.issues.items():
            self._finish(rank, issue)
        return times

    def _base(self, rank: int, issue: Issue, waited: Sequence[Mapping[int, int]], times: StepTimes) -> int:
        issued = max(self.host_ns[rank], issue.issued_ns)
        times.host_ns[rank] = issued - self.host_ns[rank]
        self.host_ns[rank] = issued
        ends = [issued, *(each.get(rank, 0) for each in waited)]
        if issue.row < 0:
            return max(*ends, self._computed[rank])
        lane = int(self.timeline.lane[issue.row])
        ends.append(self._lanes[rank].get(lane, 0))
        return max(ends) if lane == self.compute_lanes[rank] else max(*ends, self._computed[rank])

    def _synchronise(self, step: Step, base: Mapping[int, int], times: StepTimes) -> None:
        for rank, issue in step.issues.items():
            times.gap_ns[rank] = self._positive(issue.end_ns - base[rank])
            self.host_ns[rank] = issue.end_ns

    def _collective(
        self, step: Step, base: Mapping[int, int], communication: Communication | None, times: StepTimes
    ) -> None:
        groups: dict[int, list[int]] = {}
        for rank in step.issues:
            groups.setdefault(0 if communication is None else int(communication.group[rank]), []).append(rank)
        for ranks in groups.values():
            begun = max(self._start(step.issues[rank]) for rank in ranks)
            ready = max(base[rank] for rank in ranks)
            for rank in ranks:
                self._split(rank, ready, begun, step.issues[rank].end_ns, times)

    def _exchange(self, step: Step, base: Mapping[int, int], to: IntArray, times: StepTimes) -> None:
        sends = {rank: int(to[rank]) for rank in step.issues if int(to[rank]) != rank and int(to[rank]) in step.issues}
        source = {receiver: rank for rank, receiver in sends.items()}
        begun = {rank: max(self._start(step.issues[each]) for each in (rank, sends[rank])) for rank in sends}
        alone = {rank: issue.end_ns - self._latest(begun, rank, source) for rank, issue in step.issues.items()}
        work = {rank: max(0, min(alone[rank], alone[receiver])) for rank, receiver in sends.items()}
        for rank, receiver in sends.items():
            arrived = begun[rank] + work[rank]
            other = source.get(rank, rank)
            late = step.issues[rank].end_ns - max(arrived, begun.get(other, 0) + work.get(other, 0))
            late = min(max(0, late), max(0, step.issues[receiver].end_ns - arrived))
            times.gap_ns[rank] = self._positive(begun[rank] - max(base[rank], base[receiver])) + late
            times.work_ns[rank] = work[rank]

    def _latest(self, begun: Mapping[int, int], rank: int, source: Mapping[int, int]) -> int:
        """When the later of a rank's two transfers, sent and received, began."""
        return max(begun.get(rank, 0), begun.get(source.get(rank, rank), 0))

    def _split(self, rank: int, base_ns: int, start_ns: int, end_ns: int, times: StepTimes) -> None:
        times.gap_ns[rank] = self._positive(start_ns - base_ns)
        times.work_ns[rank] = self._positive(end_ns - max(start_ns, base_ns))

    def _positive(self, time_ns: int) -> int:
        self.contradicted_ns += max(0, -time_ns)
        return max(0, time_ns)

    def _start(self, issue: Issue) -> int:
        return int(self.timeline.start_ns[issue.row])

    def _finish(self, rank: int, issue: Issue) -> None:
        if issue.row < 0:
            return
        lane = int(self.timeline.lane[issue.row])
        self._lanes[rank][lane] = issue.end_ns
        if lane == self.compute_lanes[rank]:
            self._computed[rank] = max(self._computed[rank], issue.end_ns)

"""A recording as a Program with its measured costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.program.operations import (
    COMPUTE,
    HOST,
    SYNCHRONIZE,
    Buffer,
    Collective,
    Elementwise,
    Exchange,
    Operation,
    Work,
)
from simulator.program.program import Program
from simulator.program.rings import Matching
from simulator.program.setup import Ranks
from simulator.traced.issues import Issue, RankIssues, order_issues
from simulator.traced.merge import Step, merge_issues
from simulator.traced.timing import Clock, StepTimes
from traces.errors import InputError
from traces.garbage import collector_paused
from traces.kineto.recording import Recording
from traces.launches import Communication
from traces.timeline import OperationInfo

IntArray = NDArray[np.int64]
OVERLAPS = ("recorded", "none", "full")


@dataclass
class TracedProgram:
    """A Program, and what its operations took.

    Attributes
    ----------
    times : of each operation of the Program, by its id.
    inferred_waits : waits that were guessed, as the trace does not record them.
    contradicted_ns : time by which the trace contradicts the rules; 0 where it is reproduced exactly.
    on_device : whether gaps are the GPU's; else they are the host's own work.
    """

    program: Program
    times: list[StepTimes]
    inferred_waits: int
    contradicted_ns: int
    on_device: bool


@collector_paused()
def build_traced_program(recording: Recording, overlap: str = "recorded") -> TracedProgram:
    """Turn a recording into a Program.

    Parameters
    ----------
    overlap : which communication computation waits for: what the trace says; ``none``, every communication before any
        later computation; or ``full``, never.

    Raises
    ------
    InputError
        For another overlap.
    """
    if overlap not in OVERLAPS:
        raise InputError("unknown overlap", got=overlap, expected="one of " + ", ".join(OVERLAPS))
    ranks = [order_issues(recording, rank) for rank in range(recording.timeline.n_ranks)]
    builder = _Builder(recording, ranks, overlap)
    for step in merge_issues(recording.timeline, [each.issues for each in ranks]):
        builder.take(step)
    inferred = sum(each.inferred for each in ranks)
    return TracedProgram(builder.program, builder.times, inferred, builder.clock.contradicted_ns, recording.on_device)


class _Token(NamedTuple):
    """An empty buffer that an operation writes, and when it was there, by rank."""

    buffer: Buffer
    end_ns: dict[int, int]


@dataclass
class _Builder:
    recording: Recording
    ranks: list[RankIssues]
    overlap: str
    times: list[StepTimes] = field(default_factory=list)

    def __post_init__(self) -> None:
        timeline = self.recording.timeline
        self.program = Program(Ranks(timeline.n_ranks, timeline.n_ranks))
        self.clock = Clock(timeline, [each.compute_lane for each in self.ranks])
        self._token_of: dict[int, _Token] = {}
        self._last: dict[str, Buffer] = {}

    def take(self, step: Step) -> None:
        """One more operation; several where its ranks have it on different lanes or wait for different things."""
        if self._communicates(step):
            tokens = [token for token in self._tokens(step) if self._consistent(token, step) == set(step.issues)]
            self._emit(step, tokens)
            return
        lanes: dict[str, dict[int, Issue]] = {}
        for rank, issue in step.issues.items():
            lanes.setdefault(self._lane(step, rank), {})[rank] = issue
        for issues in lanes.values():
            self._take_local(Step(step.operation, issues))

    def _take_local(self, step: Step) -> None:
        """What one rank waited for, all wait for, unless on some it cannot have been so: those stand alone."""
        tokens = self._tokens(step)
        together = set(step.issues).intersection(*(self._consistent(token, step) for token in tokens))
        if together:
            self._emit(Step(step.operation, {rank: step.issues[rank] for rank in sorted(together)}), tokens)
        for rank in sorted(step.issues.keys() - together):
            alone = Step(step.operation, {rank: step.issues[rank]})
            self._emit(alone, self._tokens(alone))

    def _emit(self, step: Step, tokens: list[_Token]) -> None:
        communication = self.recording.communication.get(step.operation)
        lane, number = self._lane(step, min(step.issues)), len(self.times)
        reads = self._reads(lane, tokens)
        self.times.append(self.clock.take(step, communication, [token.end_ns for token in tokens]))
        writes = self._writes(step, lane, number)
        kind, phase, index = SYNCHRONIZE, "host", 0
        if step.operation >= 0:
            info = self._info(step)
            kind, phase, index = info.kind, info.phase, info.step
        work, options = self._work(step, communication), {"operation": step.operation}
        self.program.operation(
            Operation(number, kind, lane, phase, index, reads, writes, work, self._mask(step), options)
        )

    def _tokens(self, step: Step) -> list[_Token]:
        """What its ranks waited for."""
        sources = sorted({row for issue in step.issues.values() for row in issue.sources})
        found = {id(token): token for row in sources if (token := self._token_of.get(row)) is not None}
        return list(found.values())

    def _consistent(self, token: _Token, step: Step) -> set[int]:
        """Ranks on which the step began no earlier than the token was there."""
        begun = {rank: self._begun_ns(issue) for rank, issue in step.issues.items()}
        return {rank for rank, start_ns in begun.items() if token.end_ns.get(rank, 0) <= start_ns}

    def _begun_ns(self, issue: Issue) -> int:
        return int(self.recording.timeline.start_ns[issue.row]) if issue.row >= 0 else issue.end_ns

    def _lane(self, step: Step, rank: int) -> str:
        if step.operation < 0:
            return HOST
        lane = int(self.recording.timeline.lane[step.issues[rank].row])
        if lane == self.ranks[rank].compute_lane:
            return COMPUTE
        name = self.recording.timeline.lanes[lane]
        return name if name.startswith("comm:") else f"comm:{name}"

    def _reads(self, lane: str, tokens: list[_Token]) -> tuple[Buffer, ...]:
        if lane == COMPUTE and self.overlap != "recorded":
            return tuple(self._last.values()) if self.overlap == "none" else ()
        return tuple(token.buffer for token in tokens)

    def _writes(self, step: Step, lane: str, number: int) -> tuple[Buffer, ...]:
        """What is not on the compute lane leaves a token, for others to wait for."""
        if lane in (COMPUTE, HOST):
            return ()
        buffer = Buffer(number, f"done {number}", 1, 0, 1, 1, "fp32", 0)
        token = _Token(buffer, {rank: issue.end_ns for rank, issue in step.issues.items()})
        self.program.allocate(buffer)
        for issue in step.issues.values():
            self._token_of[issue.row] = token
        if self._communicates(step):
            self._last[lane] = buffer
        return (buffer,)

    def _work(self, step: Step, communication: Communication | None) -> Work:
        if not self._communicates(step):
            return Elementwise("measured", 0, 0)
        timeline, n = self.recording.timeline, self.recording.timeline.n_ranks
        sent = np.zeros(n, dtype=np.int64)
        for rank, issue in step.issues.items():
            sent[rank] = timeline.bytes[issue.row]
        lane = self._lane(step, min(step.issues)).removeprefix("comm:")
        if communication is not None and communication.to is not None:
            return Exchange(Matching(lane, communication.to), sent)
        groups = None if communication is None else communication.group
        return Collective(self._info(step).kind, sent, sent, groups)

    def _mask(self, step: Step) -> NDArray[np.bool_] | None:
        if len(step.issues) == self.recording.timeline.n_ranks:
            return None
        mask = np.zeros(self.recording.timeline.n_ranks, dtype=bool)
        mask[list(step.issues)] = True
        return mask

    def _communicates(self, step: Step) -> bool:
        return step.operation >= 0 and self._info(step).category == "communication"

    def _info(self, step: Step) -> OperationInfo:
        return self.recording.timeline.operations[step.operation]

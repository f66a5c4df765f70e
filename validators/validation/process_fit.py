"""From timelines of real processes to a profile of their host (`cost_models.processes`).

Of an exchange, what counts is the time from when a rank and its two neighbours are there, of a collective from when its
whole group is: waiting for a peer is the peer's time. What Python needs between two operations is the gap between
operations on the compute lane of which the second waits for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cost_models.processes import ProcessProfile, Sample, fit_jitter, fit_processes
from simulator.engines.maxplus import MaxPlus
from simulator.engines.rows import Rows
from simulator.process_costs import ProcessCosts, features_by_rank
from simulator.program.operations import COMPUTE, Collective, Exchange, Operation
from simulator.program.program import Program
from simulator.recording import build_program
from simulator.schedules import parse_schedule
from traces.timeline import Timeline
from validators.executors.waits import Waits
from validators.validation.runs import MeasuredRun, RunFolder

IntArray = NDArray[np.int64]
LEVEL = 0.9
DRAWS = 5
DISTURBED = 1.5
"""Instrumented over quickest isolated call from which on it is not fitted to."""
INDEPENDENCE = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Exponents of the jitter that are tried; the one with the least median error on the calibration's own runs is kept."""


def fit_host(folder: RunFolder, name: str, source: str) -> ProcessProfile:
    """A profile of the host on which a folder's runs were measured."""
    profile = ProcessProfile(name, {}, {}, source)
    measured = [run for run in folder.runs.values() if run.outcome == "measured"]
    for ranks in sorted({run.configuration.ranks for run in measured}):
        profile = _with_ranks(profile, folder, [run for run in measured if run.configuration.ranks == ranks], ranks)
    return profile


def is_disturbed(run: MeasuredRun) -> bool:
    """Whether the instrumented call took so much longer than the quickest that something else had the host.

    Timing every operation itself costs a few percent; what a fit would take for jitter of every such operation is a
    neighbour's burst.
    """
    return run.instrumented_s is not None and run.instrumented_s > DISTURBED * min(run.samples_s)


def _with_ranks(profile: ProcessProfile, folder: RunFolder, runs: list[MeasuredRun], ranks: int) -> ProcessProfile:
    programs = [program_of(run) for run in runs]
    samples = calibration_samples(folder, runs, programs)
    table = fit_processes(samples)
    best: tuple[float, ProcessProfile, list[float]] | None = None
    for exponent in INDEPENDENCE:
        trial = replace(
            profile,
            tables={**profile.tables, ranks: table},
            jitter={**profile.jitter, ranks: fit_jitter(samples, table)},
            independence={**profile.independence, ranks: exponent},
        )
        apart = [
            float(np.log(predict(trial, program).makespan_ns / 1e9 / run.time_s))
            for run, program in zip(runs, programs, strict=True)
        ]
        if best is None or abs(float(np.median(apart))) < best[0]:
            best = abs(float(np.median(apart))), trial, apart
    assert best is not None
    error = float(f"{np.expm1(np.quantile(np.abs(best[2]), LEVEL)):.3g}")
    return replace(best[1], relative_error={**profile.relative_error, ranks: error})


def calibration_samples(folder: RunFolder, runs: Sequence[MeasuredRun], programs: Sequence[Program]) -> list[Sample]:
    """Operations of the calls that nothing disturbed, and of all for terms that these do not have."""
    kept: list[Sample] = []
    others: list[Sample] = []
    for run, program in zip(runs, programs, strict=True):
        timeline = folder.timeline(run)
        if timeline is not None:
            (others if is_disturbed(run) else kept).extend(list_samples(program, timeline))
    known = {term for term, _, _ in kept}
    return kept + [sample for sample in others if sample[0] not in known]


def predict(profile: ProcessProfile, program: Program) -> Timeline:
    """The Program's timeline on a host: of ``DRAWS`` draws of its jitter the one with the median makespan."""
    n_ranks = program.setup.n_ranks
    seeds = range(DRAWS) if n_ranks in profile.jitter else (None,)
    timelines = []
    for seed in seeds:
        rows = Rows(n_ranks)
        program.replay(MaxPlus(n_ranks, ProcessCosts(profile, n_ranks, seed), rows))
        timelines.append(rows.timeline({"engine": "maxplus", "hardware": profile.name}))
    return sorted(timelines, key=lambda timeline: timeline.makespan_ns)[len(timelines) // 2]


def program_of(run: MeasuredRun) -> Program:
    """What a run ran."""
    return build_program(parse_schedule(run.schedule), run.configuration.setup, run.configuration.pass_)


def list_samples(program: Program, timeline: Timeline) -> Iterator[Sample]:
    """Every operation on every rank that took part, as the fit wants it."""
    spans = _spans(timeline)
    for operation in program.operations:
        start, end, there = spans[operation.id]
        began = _began(operation, start)
        for rank, (term, features) in enumerate(features_by_rank(operation, program.setup.n_ranks)):
            idle = operation.category == "communication" and not features[-1]  # nothing of its own: its peer's time
            if there[rank] and any(features) and not idle:
                yield term, features, max(int(end[rank] - began[rank]), 0) / 1e9
    yield from _gaps(program, spans)


def _spans(timeline: Timeline) -> Mapping[int, tuple[IntArray, IntArray, NDArray[np.bool_]]]:
    """Start, end and presence of each operation, columns over ranks; operations by their number in the Program."""
    shape = len(timeline.operations), timeline.n_ranks
    start, end, there = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, bool)
    start[timeline.operation, timeline.rank] = timeline.start_ns
    end[timeline.operation, timeline.rank] = timeline.end_ns
    there[timeline.operation, timeline.rank] = True
    return {info.id: (start[i], end[i], there[i]) for i, info in enumerate(timeline.operations)}


def _began(operation: Operation, start: IntArray) -> IntArray:
    """When all that an operation needs of other ranks was there."""
    work = operation.work
    if isinstance(work, Exchange):
        return cast(IntArray, np.maximum(np.maximum(start, start[work.ring.to]), start[work.ring.source]))
    if isinstance(work, Collective):
        groups = np.zeros(len(start), np.int64) if work.groups is None else work.groups
        return np.array([start[groups == group].max() for group in groups])
    return start


def _gaps(
    program: Program, spans: Mapping[int, tuple[IntArray, IntArray, NDArray[np.bool_]]]
) -> Iterator[Sample]:  # fmt: skip
    for rank in range(program.setup.n_ranks):
        waits, before = Waits(), None
        for operation in _of_rank(program.operations, rank):
            waited = waits.issue(operation)
            if operation.lane != COMPUTE:
                before = None
                continue
            if before is not None and not waited:
                yield "issue", (1.0,), max(int(spans[operation.id][0][rank] - spans[before][1][rank]), 0) / 1e9
            before = operation.id


def _of_rank(operations: Iterable[Operation], rank: int) -> Iterator[Operation]:
    return (each for each in operations if each.ranks is None or each.ranks[rank])

"""Measures the schedules of one configuration: checked first, then timed in turn, then with every operation timed.

An isolated call starts on idle devices at a moment that all ranks agree on and ends when the rank's last operation
does; its time is the largest of any rank. The schedules of a configuration take turns, so that what changes slowly
(clocks, temperature, neighbours) changes for all of them. A result that is wrong has no times.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from simulator.recording import build_program
from simulator.schedules import PEERS, Schedule, parse_schedule
from traces.errors import InputError
from traces.timeline import Timeline
from validators.executors.distributed import RankExecutor
from validators.executors.local import AttentionKernel
from validators.executors.loopback import Loopback
from validators.executors.world import World
from validators.kernels import build_attention_kernel
from validators.kernels.fused import merge_into
from validators.peers.adapters import why_missing
from validators.peers.executor import PeerExecutor
from validators.reference import relative_error
from validators.validation.candidate import Candidate, measured_timeline
from validators.validation.inputs import SeededInputs
from validators.validation.runs import Configuration, MeasuredRun
from validators.validation.sampled import SampleCheck, is_right
from validators.validation.step_configuration import StepConfiguration

LOOPED_ELEMENTS = 1 << 27
"""Elements of Q up to which an approximate schedule is run again with all ranks in one process, to compare."""
LOOPED_ERROR = 1e-3
INSTRUMENTED = {"cuda": 1, "cpu": 3}
"""Calls whose operations are timed: a host's processes are disturbed now and then."""


class Measurement:
    """The schedules of one configuration on the ranks of a world.

    Parameters
    ----------
    world : this process among all.
    configuration : the workload, and the kernel that does attention.
    seed : of the inputs and of what is sampled.
    machine : described in every run.
    """

    def __init__(
        self, world: World, configuration: Configuration | StepConfiguration, seed: int, machine: Mapping[str, Any]
    ) -> None:  # fmt: skip
        self._world, self._configuration, self._seed, self._machine = world, configuration, seed, machine
        self._setup = configuration.setup
        self._inputs = SeededInputs(self._setup, seed, world.rank, world.device)
        self._kernel: AttentionKernel = build_attention_kernel(configuration.kernel)

    @cached_property
    def _samples(self) -> SampleCheck:
        return SampleCheck(self._world, self._setup, self._inputs, self._seed)

    def run(self, schedules: Sequence[str], rounds: int) -> Iterator[tuple[MeasuredRun, Timeline | None]]:
        """Measure; the runs are complete on rank 0 only. No rounds: only whether each fits into memory."""
        if not rounds:
            yield from self._fit(schedules)
            return
        candidates = [each for each in map(self._prepare, schedules) if each is not None]
        for candidate in sorted(candidates, key=lambda each: each.schedule.name in PEERS):
            self._guarded(candidate, self._check)  # peers, which may have no LSE to sample, take that of ours
        gc.collect()
        for _ in range(rounds):
            for candidate in candidates:
                self._guarded(candidate, self._time)
        for candidate in candidates:
            timeline = self._guarded(candidate, self._instrument)
            yield self._finished(candidate), timeline
        candidates.clear()

    def _fit(self, schedules: Sequence[str]) -> Iterator[tuple[MeasuredRun, None]]:
        """One call of each schedule in memory that holds nothing else; its results are not looked at."""
        for spec in schedules:
            self._empty_memory()
            try:
                candidate = self._prepare(spec)
            except torch.OutOfMemoryError as error:  # its inputs alone are too much
                yield self._too_large(spec, str(error)[:200]), None
                continue
            if candidate is None:
                continue
            self._guarded(candidate, self._call_once)
            run = candidate.run
            yield (replace(run, outcome="fits", samples_s=()) if candidate.alive else run), None
            del candidate
            self._inputs = SeededInputs(self._setup, self._seed, self._world.rank, self._world.device)

    def _too_large(self, spec: str, detail: str) -> MeasuredRun:
        schedule = parse_schedule(spec).resolve(self._setup)
        configuration = replace(self._configuration, pass_=self._pass(schedule))
        return MeasuredRun(
            configuration, str(schedule), "out_of_memory", self._world.backend, detail=detail, machine=self._machine
        )

    def _call_once(self, candidate: Candidate) -> None:
        before = self._reset_peak()
        candidate.executor.call()
        peak = self._peak(before, candidate)
        candidate.executor.forget()
        candidate.run = replace(candidate.run, peak_memory_bytes=peak)

    def _empty_memory(self) -> None:
        gc.collect()
        if self._world.device.type == "cuda":
            torch.cuda.empty_cache()

    def _prepare(self, spec: str) -> Candidate | None:
        """None where the schedule does not take the configuration."""
        try:
            schedule = parse_schedule(spec).resolve(self._setup)
            program = build_program(schedule, self._setup, self._pass(schedule))
        except InputError:
            return None
        configuration = replace(self._configuration, pass_=self._pass(schedule))
        executor: RankExecutor | PeerExecutor
        if schedule.name in PEERS:
            if why_missing(schedule):
                return None
            executor = PeerExecutor(self._world, schedule, program, self._inputs.load)
            configuration = replace(configuration, kernel="flash2" if self._world.backend == "nccl" else "cpu")
        else:
            executor = RankExecutor(self._world, program, self._kernel, self._inputs.load, merge=merge_into)
        run = MeasuredRun(configuration, str(schedule), "measured", self._world.backend, (1.0,), machine=self._machine)
        return Candidate(schedule, program, executor, run, [], [])

    def _pass(self, schedule: Schedule) -> str:
        return self._configuration.pass_ if schedule.has_backward else "forward"

    def _guarded(self, candidate: Candidate, step: Any) -> Any:
        """A step, unless the candidate has failed; memory that does not suffice is an outcome like another."""
        if not candidate.alive:
            return None
        try:
            return step(candidate)
        except torch.OutOfMemoryError as error:
            candidate.run = replace(candidate.run, outcome="out_of_memory", samples_s=(), detail=str(error)[:200])
        except InputError as error:
            candidate.run = replace(candidate.run, outcome="refused", samples_s=(), detail=error.message)
        candidate.executor.forget()
        return None

    def _check(self, candidate: Candidate) -> None:
        candidate.executor.call()
        errors = self._errors(candidate)
        candidate.executor.forget()
        right = self._world.share(_is_right(candidate, errors))
        candidate.run = replace(candidate.run, errors=errors)
        if right:
            self._samples.accept()
        else:
            candidate.run = replace(candidate.run, outcome="wrong", samples_s=(), detail="a result is not right")

    def _errors(self, candidate: Candidate) -> dict[str, float]:
        executor = candidate.executor
        if candidate.schedule.exact:
            return self._samples.errors(executor.outputs, executor.output_buffers)
        w = self._setup.workload
        if w.batch * w.seq_len * w.heads * w.head_dim > LOOPED_ELEMENTS:
            finite = all(bool(tensor.isfinite().all()) for tensor in executor.outputs.values())
            return self._worst({"not finite": 0.0 if finite else torch.inf})
        looped = Loopback(
            candidate.program, self._inputs.all(), self._kernel, device=self._world.device, dtype=None, merge=merge_into
        )
        candidate.program.replay(looped)
        own = {name: tensors[self._world.rank] for name, tensors in looped.shards.items()}
        return self._worst({name: relative_error(executor.outputs[name], want) for name, want in own.items()})

    def _worst(self, errors: dict[str, float]) -> dict[str, float]:
        """Of all ranks: each compares its own results, which are not sent to others."""
        every = self._world.gather(errors)
        return {name: max(each[name] for each in every) for name in errors}

    def _time(self, candidate: Candidate) -> None:
        before = self._reset_peak()
        with _no_collection():
            elapsed_ns = candidate.executor.call()
        peak = self._peak(before, candidate)
        candidate.executor.forget()
        slowest = self._world.gather((elapsed_ns, peak, getattr(candidate.executor, "issued_ns", None)))
        candidate.samples_ns.append(max(each[0] for each in slowest))
        if slowest[0][2] is not None:
            candidate.issued_ns.append(max(each[2] for each in slowest))
        if peak is not None:
            candidate.run = replace(candidate.run, peak_memory_bytes=max(each[1] for each in slowest))

    def _instrument(self, candidate: Candidate) -> Timeline | None:
        """The call of those whose operations are timed that took the median time; none of a peer's."""
        if isinstance(candidate.executor, PeerExecutor):
            return None
        calls = [self._recorded(candidate) for _ in range(INSTRUMENTED[self._world.device.type])]
        known = [each for each in calls if each is not None]
        if not known:
            return None
        slowest_ns, spans = sorted(known, key=lambda each: each[0])[len(known) // 2]
        candidate.run = replace(candidate.run, instrumented_s=slowest_ns / 1e9)
        return measured_timeline(candidate.program, spans)

    def _recorded(self, candidate: Candidate) -> tuple[int, list[Mapping[int, tuple[int, int]]]] | None:
        """Nanoseconds of the slowest rank, and spans of all ranks; on rank 0."""
        assert isinstance(candidate.executor, RankExecutor)
        with _no_collection():
            elapsed_ns = candidate.executor.call(recorded=True)
        spans = candidate.executor.spans_ns
        candidate.executor.forget()
        gathered = self._world.collect((elapsed_ns, spans))
        return None if gathered is None else (max(each[0] for each in gathered), [each[1] for each in gathered])

    def _finished(self, candidate: Candidate) -> MeasuredRun:
        if not candidate.alive:
            return candidate.run
        issued_s = statistics.median(candidate.issued_ns) / 1e9 if candidate.issued_ns else None
        samples_s = tuple(sample / 1e9 for sample in candidate.samples_ns)
        return replace(candidate.run, samples_s=samples_s, issued_s=issued_s)

    def _reset_peak(self) -> int:
        if self._world.device.type != "cuda":
            return 0
        torch.cuda.reset_peak_memory_stats(self._world.device)
        return torch.cuda.memory_allocated(self._world.device)

    def _peak(self, before: int, candidate: Candidate) -> int | None:
        """What the call had at most, its inputs included, which were there before."""
        if self._world.device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self._world.device) - before + candidate.executor.input_bytes


def _is_right(candidate: Candidate, errors: Mapping[str, float]) -> bool:
    if candidate.schedule.exact:
        return is_right(errors, candidate.program)
    return all(error <= LOOPED_ERROR for error in errors.values())


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's garbage collector does not run meanwhile, nor just before, which would empty the host's caches."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()

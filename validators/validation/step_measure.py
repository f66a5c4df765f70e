"""Measures training steps: a short sequence is checked against autograd, then the whole step is timed like a schedule.

Peak memory is that of tensors, and what PyTorch's allocator had taken from the device for them, beginning with nothing
taken. Before every timed step the device rests, as before every isolated call.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from simulator.program.program import Program
from simulator.schedules import parse_schedule
from validators.executors.distributed import RankExecutor
from validators.kernels.fused import merge_into
from validators.validation.candidate import Candidate
from validators.validation.measure import Measurement
from validators.validation.runs import MeasuredRun
from validators.validation.step_configuration import StepConfiguration
from validators.validation.step_inputs import StepInputs
from validators.validation.step_reference import check_step

CHECKED_TOKENS = 1024
REST_S = 0.1


class StepMeasurement(Measurement):
    """A step on the ranks of a world."""

    def _prepare(self, spec: str) -> Candidate:
        c = self._step
        self._empty_cache()
        schedule = parse_schedule(spec).resolve(c.setup)
        run = MeasuredRun(c, str(schedule), "measured", self._world.backend, (1.0,), machine=self._machine)
        program = c.program(spec)
        return Candidate(schedule, program, self._executor(program, self._inputs_of(c)), run, [], [])

    def _executor(self, program: Program, inputs: StepInputs) -> RankExecutor:
        return RankExecutor(self._world, program, self._kernel, inputs.load, merge=merge_into)

    def _inputs_of(self, configuration: StepConfiguration) -> StepInputs:
        return StepInputs(configuration, self._seed, self._world.rank, self._world.device)

    @property
    def _step(self) -> StepConfiguration:
        assert isinstance(self._configuration, StepConfiguration)
        return self._configuration

    def _check(self, candidate: Candidate) -> None:
        """A short sequence is right; the whole one has a finite loss, and shows what memory is taken.

        Weights and optimizer states are not in memory twice.
        """
        assert isinstance(candidate.executor, RankExecutor)
        candidate.executor.unload()
        c = self._step.shortened(CHECKED_TOKENS)
        program, inputs = c.program(str(candidate.schedule)), self._inputs_of(c)
        short = self._executor(program, inputs)
        short.call()
        errors = check_step(self._world, c, program, inputs, short.outputs)
        short.unload()
        candidate.executor.load()
        candidate.run = replace(candidate.run, errors=errors.summary)
        if not all(self._world.gather(errors.right)):
            candidate.run = replace(candidate.run, outcome="wrong", samples_s=(), detail="a result is not right")
            return
        self._first_call(candidate)

    def _first_call(self, candidate: Candidate) -> None:
        self._empty_cache()
        before = self._reset_peak()
        candidate.executor.call()
        if self._world.device.type == "cuda":
            taken = torch.cuda.max_memory_reserved(self._world.device) - before + candidate.executor.input_bytes
            candidate.run = replace(candidate.run, peak_reserved_bytes=max(self._world.gather(taken)))
        finite = all(bool(each.isfinite().all()) for each in candidate.executor.outputs.values())
        candidate.executor.forget()
        if not all(self._world.gather(finite)):
            candidate.run = replace(candidate.run, outcome="wrong", samples_s=(), detail="a result is not finite")

    def _time(self, candidate: Candidate) -> None:
        self._rest()
        super()._time(candidate)

    def _rest(self) -> None:
        if self._world.device.type == "cuda":
            torch.cuda.synchronize(self._world.device)
            time.sleep(REST_S)

    def _empty_cache(self) -> None:
        if self._world.device.type == "cuda":
            torch.cuda.empty_cache()

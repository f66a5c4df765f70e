"""Runs a plan: what is recorded is skipped, every outcome is a record, and a time limit ends the run between cases."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from traces.errors import InputError
from traces.records import CalibrationRecord, RecordFile
from validators.bench.attention import AttentionBench, WrongResultError
from validators.bench.copies import copy_cases, run_copy
from validators.bench.elementwise import elementwise_cases, run_elementwise
from validators.bench.fresh import fresh_cases
from validators.bench.gemm import run_gemm
from validators.bench.host import run_host
from validators.bench.layers import layer_cases, run_layer
from validators.bench.machine import Monitor, describe_machine
from validators.bench.plan import Case, kernel_plan, ordered
from validators.bench.timing import Timer
from validators.bench.trains import run_train, train_cases

Report = Callable[[str], None]


@dataclass
class Summary:
    """What a run did: cases by outcome, and those it had no time for."""

    outcomes: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    left: int = 0

    def count(self, outcome: str) -> None:
        """One more."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def __str__(self) -> str:
        done = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items())) or "nothing new"
        return f"{done}; {self.skipped} recorded before, {self.left} left"


def full_plan(seed: int = 0) -> list[Case]:
    """Everything that one GPU can say."""
    cases = [*kernel_plan(seed), *train_cases(), *fresh_cases(), *elementwise_cases(), *layer_cases(), *copy_cases()]
    return ordered(cases, seed)


def run_plan(
    plan: Sequence[Case],
    file: RecordFile,
    device: torch.device,
    *,
    minutes: float,
    shard: tuple[int, int] = (0, 1),
    again: bool = False,
    report: Report = print,
    notes: Mapping[str, Any] | None = None,
) -> Summary:
    """Measure what is not recorded yet, for some minutes.

    Parameters
    ----------
    plan : in the order in which to measure.
    file : of records, appended to.
    minutes : no case is begun after them.
    shard : (i, n) takes the cases i, i + n, ... of those that are missing.
    again : measure also what is recorded.
    report : told of each case.
    notes : added to the machine's provenance.
    """
    end = time.monotonic() + 60 * minutes
    machine = file.add_machine(describe_machine(device) | dict(notes or {}))
    known = set() if again else {record.key for record in file.records}
    missing = [case for case in plan if case.key not in known]
    summary = Summary(skipped=len(plan) - len(missing))
    mine = missing[shard[0] :: shard[1]]
    bench = Bench(device)
    for number, case in enumerate(mine):
        if time.monotonic() >= end:
            summary.left = len(mine) - number
            break
        record = bench.run(case, machine)
        file.add(record)
        summary.count(record.outcome)
        report(_line(record))
    return summary


class Bench:
    """Measures cases on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.timer = device, Timer(device)
        self._attention = AttentionBench(self.timer)

    def run(self, case: Case, machine: str) -> CalibrationRecord:
        """The record of a case, whatever comes of it."""
        samples: list[float] = []
        errors: dict[str, float] = {}
        outcome, detail = "measured", None
        with Monitor(self.device) as monitor:
            self.timer.settled = monitor.forget
            try:
                samples, errors = self._measure(case)
            except torch.OutOfMemoryError as error:
                outcome, detail = "out_of_memory", _first_line(error)
            except WrongResultError as error:
                outcome, detail, errors = "wrong", _first_line(error), error.errors
            except (InputError, RuntimeError, NotImplementedError) as error:
                outcome, detail = "refused", _first_line(error)
        if outcome != "measured":
            self._attention.forget()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return CalibrationRecord(
            case.kind, case.parameters, outcome, tuple(samples), machine, monitor.conditions,
            {name: float(f"{value:.3g}") for name, value in errors.items() if value < 1e300}, detail,
        )  # fmt: skip

    def _measure(self, case: Case) -> tuple[list[float], dict[str, float]]:
        if case.kind in ("attention", "sustained"):
            return self._attention.run(case)
        self._attention.forget()
        if case.kind == "gemm":
            return run_gemm(case, self.timer)
        if case.kind == "train":
            return run_train(case, self.timer, self._attention)
        if case.kind == "elementwise":
            run = run_layer if "hidden" in case.parameters else run_elementwise
            return run(case, self.timer), {}
        if case.kind == "host_copy":
            return run_copy(case, self.timer), {}
        if case.kind == "host":
            return run_host(case, self.timer), {}
        raise InputError("no microbenchmark here", got=case.kind)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]


def _line(record: CalibrationRecord) -> str:
    what = " ".join(f"{name}={value}" for name, value in record.parameters.items() if value is not None)
    result = f"{1e3 * record.median_s:.4f} ms +-{100 * record.spread:.1f}%" if record.samples_s else record.detail
    return f"{record.kind} {what}: {result}"

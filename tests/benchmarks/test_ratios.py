"""Speed guarded by ratios measured in one run, which hold on any machine; absolute figures are in benchmarks/."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
import simpy

from benchmarks.cases import des, maxplus
from benchmarks.measure import run_fresh


def best_s(measure: Callable[[], float], repeats: int = 5) -> float:
    return min(measure() for _ in range(repeats))


def numpy_call_s() -> float:
    """One maximum of two columns of 256 ranks."""
    a, b = np.arange(256), np.arange(256)[::-1].copy()
    begin = time.perf_counter()
    for _ in range(5000):
        np.maximum(a, b)
    return (time.perf_counter() - begin) / 5000


def simpy_event_s() -> float:
    """One timeout of a bare SimPy process."""

    def process(env: simpy.Environment) -> simpy.events.ProcessGenerator:
        for _ in range(5000):
            yield env.timeout(1)

    env = simpy.Environment()
    env.process(process(env))
    begin = time.perf_counter()
    env.run()
    return (time.perf_counter() - begin) / 5000


def test_an_operation_of_all_ranks_costs_a_few_dozen_numpy_calls() -> None:
    def operation_s() -> float:
        result = maxplus(256)
        return float(result["seconds"]) / (result["rank_operations"] / 256)

    assert best_s(operation_s) < 120 * best_s(numpy_call_s)  # measured: 40 to 60


def test_time_grows_with_operations_not_with_ranks() -> None:
    def seconds(ranks: int) -> float:
        return float(maxplus(ranks)["seconds"])

    assert best_s(lambda: seconds(512)) < 2 * 4 * best_s(lambda: seconds(128))  # 4 times the operations


def test_a_rank_operation_costs_a_few_simpy_events() -> None:
    def rank_operation_s() -> float:
        result = des(64)
        return float(result["seconds"]) / result["rank_operations"]

    assert best_s(rank_operation_s, 3) < 12 * best_s(simpy_event_s)  # measured: 5 to 6


def test_fresh_processes_keep_compiled_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    said = "import json, sys; print(json.dumps({'seconds': 0.0, 'keeps': not sys.dont_write_bytecode}))"
    assert run_fresh([sys.executable, "-c", said], repeats=1)["keeps"] is True

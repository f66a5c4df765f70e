"""The plan, the checks that stop a wrong kernel from being timed, and the runner: outcomes, resuming, time limits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from traces.records import open_records, read_records
from validators.bench import checks
from validators.bench.attention import call_of, draw_problem
from validators.bench.elementwise import elementwise_cases
from validators.bench.plan import Case, attention_case, kernel_plan, ordered
from validators.bench.runner import Bench, run_plan
from validators.bench.timing import Timer
from validators.kernels.dense import DenseKernel

CPU = torch.device("cpu")
CASES = [attention_case("cpu", direction, (2, 4, 2), 16, 96, 96, (None, 0)) for direction in ("forward", "backward")]


def quiet(_: str) -> None:
    pass


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Timer, "_once", lambda self, call, cold: (call(), 1e-3)[1])


def test_plan_covers_what_a_fit_needs() -> None:
    plan = kernel_plan()
    assert len({case.key for case in plan}) == len(plan)
    attention = [case.parameters for case in plan if case.kind == "attention"]
    for kernel in ("cudnn", "flash2"):
        for direction in ("forward", "backward"):
            mine = [p for p in attention if p["kernel"] == kernel and p["direction"] == direction]
            assert {p["head_dim"] for p in mine} == {64, 128}
            assert len({p["rows"] for p in mine}) >= 17 and max(p["rows"] for p in mine) == 262144
            assert len({(p["heads"], p["kv_heads"], p["batch"]) for p in mine}) >= 9
    assert [case.priority for case in plan] == sorted(case.priority for case in plan)
    assert kernel_plan(1) != kernel_plan(0) == kernel_plan(0)


def test_backward_follows_its_forward() -> None:
    plan = [case for case in ordered(kernel_plan()) if case.kind == "attention" and "delta" not in case.parameters]
    plan = [case for case in plan if int(case.parameters["rows"]) > 16]  # decoding has no backward
    for first, second in zip(plan[::2], plan[1::2], strict=True):
        assert first.parameters | {"direction": "backward"} == second.parameters


def test_elementwise_cases_are_what_programs_do() -> None:
    cases = elementwise_cases()
    assert {case.parameters["pattern"] for case in cases} >= {"copy", "merge", "accumulate", "reduce", "pack", "gather"}
    assert all(case.parameters["bytes_written"] for case in cases)
    assert len({case.key for case in cases}) == len(cases)


@pytest.mark.parametrize("window", [(None, None), (None, 0), (9, 0)])
def test_checks_accept_the_right_result_and_nothing_else(window: tuple[int | None, int | None]) -> None:
    case = attention_case("dense", "forward", (2, 4, 2), 16, 40, 60, window, dtype="fp32")
    problem = draw_problem(case.parameters, 0, CPU)
    kernel, call = DenseKernel(), call_of(case.parameters)
    problem.o, problem.lse = kernel.forward(problem.q, problem.k, problem.v, call)
    forward = checks.check_forward(problem, problem.o, problem.lse, 0)
    gradients = kernel.backward(problem.q, problem.k, problem.v, problem.do, problem.lse, problem.o, call, delta=False)
    errors = forward | checks.check_backward(problem, gradients, 0)
    assert set(errors) == {"o", "lse", "dq", "dk", "dv"} and max(errors.values()) < 1e-5
    assert checks.failures(errors) is None
    assert checks.failures(checks.check_forward(problem, problem.o * 1.02, problem.lse, 0))
    assert checks.failures(checks.check_forward(problem, problem.o, problem.lse * torch.nan, 0))
    assert checks.failures(checks.check_forward(problem, problem.o, problem.lse + 0.01, 0))
    for place in range(3):
        wrong = [each * (1.05 if number == place else 1.0) for number, each in enumerate(gradients)]
        assert checks.failures(checks.check_backward(problem, tuple(wrong), 0))


def test_records_are_written_and_a_second_run_skips_them(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    first = run_plan(CASES, open_records(path), CPU, minutes=1, report=quiet)
    assert str(first) == "2 measured; 0 recorded before, 0 left"
    forward, backward = read_records(path).records
    assert (
        len(forward.samples_s) >= 3 and set(forward.check) == {"o", "lse"} and set(backward.check) == {"dq", "dk", "dv"}
    )
    more = [*CASES, Case("gemm", {"m": 64, "n": 32, "k": 16, "dtype": "bf16"}), Case("host", {"what": "merge"})]
    second = run_plan(more, open_records(path), CPU, minutes=1, report=quiet)
    assert str(second) == "2 measured; 2 recorded before, 0 left"


def test_no_time_and_shards(tmp_path: Path) -> None:
    none = run_plan(CASES, open_records(tmp_path / "a.jsonl"), CPU, minutes=0, report=quiet)
    assert none.left == 2 and not none.outcomes
    half = run_plan(CASES, open_records(tmp_path / "b.jsonl"), CPU, minutes=1, shard=(1, 2), report=quiet)
    assert half.outcomes == {"measured": 1}
    assert read_records(tmp_path / "b.jsonl").records[0].parameters["direction"] == "backward"


def test_failures_are_outcomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(CPU)
    refused = bench.run(attention_case("cudnn", "forward", (1, 1, 1), 16, 8, 8, (None, 0)), "m")
    assert refused.outcome == "refused" and "no CUDA device" in str(refused.detail) and not refused.samples_s

    def wrong(self: object, *args: object) -> object:
        o, lse = DenseKernel.forward(self, *args)  # type: ignore[arg-type]
        return o + 0.1, lse

    monkeypatch.setattr("validators.kernels.cpu.CpuKernel.forward", wrong)
    found = Bench(CPU).run(CASES[0], "m")
    assert found.outcome == "wrong" and found.check["o"] > 0.01 and not found.samples_s

    def full(*_: object) -> object:
        raise torch.OutOfMemoryError("tried to allocate 90 GiB\nmore")

    monkeypatch.setattr("validators.kernels.cpu.CpuKernel.forward", full)
    found = Bench(CPU).run(CASES[0], "m")
    assert (found.outcome, found.detail) == ("out_of_memory", "OutOfMemoryError: tried to allocate 90 GiB")


def test_elementwise_operations_run(tmp_path: Path) -> None:
    small = [
        case for case in elementwise_cases() if case.parameters["tokens"] == 1024 and case.parameters["head_dim"] == 64
    ]
    summary = run_plan(small, open_records(tmp_path / "e.jsonl"), CPU, minutes=5, report=quiet)
    assert summary.outcomes == {"measured": len(small)}

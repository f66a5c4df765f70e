"""Trains of kernels without rests, cases that no fit sees, and records that are to be taken again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from traces.errors import InputError
from traces.records import CalibrationRecord, open_records, read_folder
from validators.bench.__main__ import unrested_keys
from validators.bench.attention import AttentionBench
from validators.bench.fresh import fresh_cases
from validators.bench.plan import Case, kernel_plan
from validators.bench.timing import Timer
from validators.bench.trains import run_train, train_cases

TIMER = Timer(torch.device("cpu"), seconds=1e-6, most=1, least=1)
LAYER = "gemm 64x32x16 + cpu forward 1x4/2x16 96 causal + cpu backward 1x4/2x16 96 full + add 64"


def run(**parameters: float | str) -> tuple[list[float], dict[str, float]]:
    return run_train(Case("train", parameters), TIMER, AttentionBench(TIMER))


def test_parts_take_turns_and_are_checked() -> None:
    samples, errors = run(parts=LAYER, seconds=0.001)
    assert len(samples) % 4 == 0 and len(samples) >= 8
    assert errors.keys() == {"0.product", "1.o", "1.lse", "2.dq", "2.dk", "2.dv"}
    assert max(errors.values()) < 6e-3


def test_after_work_and_in_a_row() -> None:
    assert run(parts="gemm 64x32x16", seconds=0.001, before_s=0.002, rest_s=0.0)[0]
    for name in ("add", "fill", "cast"):
        assert len(run(parts=f"{name} 64", in_a_row=20)[0]) == 1


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(InputError, match="unknown part"):
        run(parts="sort 64x", seconds=0.001)


def test_all_parts_of_the_plan_can_be_read() -> None:
    cases = train_cases()
    assert len({case.key for case in cases}) == len(cases)
    assert {"seconds", "in_a_row"} <= {name for case in cases for name in case.parameters}


def test_fresh_cases_share_no_length_and_no_product_with_the_plan() -> None:
    def lengths(cases: list[Case]) -> set[object]:
        return {case.parameters["rows"] for case in cases if case.kind == "attention"}

    def products(cases: list[Case]) -> set[object]:
        return {(c.parameters["m"], c.parameters["n"], c.parameters["k"]) for c in cases if c.kind == "gemm"}

    fresh, plan = fresh_cases(), kernel_plan()
    assert all(case.parameters["fresh"] for case in fresh)
    assert not lengths(fresh) & lengths(plan)
    assert not products(fresh) & products(plan)


def test_records_at_a_lowered_clock_are_taken_again(tmp_path: Path) -> None:
    file = open_records(tmp_path / "records.jsonl")
    machine = file.add_machine({"max_sm_clock_mhz": 1980})
    clocks = {1: (1e-4, 1980.0), 2: (1e-4, 1700.0), 3: (1.0, 1700.0)}
    for rows, (seconds, clock) in clocks.items():
        conditions = {"min_sm_clock_mhz": clock}
        file.add(CalibrationRecord("attention", {"rows": rows}, "measured", (seconds,), machine, conditions))
    assert unrested_keys(read_folder(tmp_path)) == {file.records[1].key}

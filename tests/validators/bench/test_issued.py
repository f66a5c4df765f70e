"""The host's times of operations, as records that say what was issued and when in a call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from traces.records import open_records
from validators.bench import issued
from validators.executors.processes import run_ranks
from validators.executors.world import World


def measure(world: World, folder: str) -> None:
    issued.TOKENS, issued.CALLS, issued.STEPS = 64, 2, issued.STEPS[1:2]
    torch.set_grad_enabled(False)
    times = issued.run_issued(world, ("dense",), 60.0)
    issued.write_records(times, open_records(Path(folder) / "issued.jsonl"), world.device)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("issued")
    run_ranks(1, measure, str(folder))
    return [
        record.parameters | {"samples": len(record.samples_s)}
        for record in open_records(folder / "issued.jsonl").records
    ]


def test_first_and_later_operations_are_told_apart(records: list[Any]) -> None:
    turns = {(each["operation"], each["turn"]) for each in records}
    assert {("linear", "first"), ("linear", "later"), ("attention_forward", "first"), ("adamw", "later")} <= turns
    assert ("embed", "later") not in turns  # there is one in a step


def test_launches_of_attention_are_said(records: list[Any]) -> None:
    launches = {each["launches"] for each in records if each["operation"] == "attention_backward"}
    assert launches == {1, 3}  # three documents are three launches of a kernel that takes a segment each


def test_what_one_rank_does_not_have_is_measured_too(records: list[Any]) -> None:
    alone = {each["operation"]: each["samples"] for each in records if each["turn"] == "alone"}
    assert {"merge", "accumulate", "pack", "collective"} <= set(alone)
    assert min(alone.values()) >= 2


def test_several_ranks_have_communication_and_rank_0s_host_is_recorded(tmp_path: Path) -> None:
    run_ranks(2, measure_several, str(tmp_path))
    found = [record.parameters for record in open_records(tmp_path / "issued.jsonl").records]
    assert {each["ranks"] for each in found} == {2}
    turns = {(each["operation"], each["turn"]) for each in found}
    assert {("exchange", "first"), ("exchange", "later"), ("all_to_all", "later"), ("all_reduce", "first")} <= turns


def measure_several(world: World, folder: str) -> None:
    issued.TOKENS, issued.CALLS = 64, 1
    torch.set_grad_enabled(False)
    times = issued.run_issued(world, ("dense",), 60.0)
    if world.rank == 0:
        issued.write_records(times, open_records(Path(folder) / "issued.jsonl"), world.device)

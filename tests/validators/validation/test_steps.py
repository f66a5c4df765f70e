"""Training steps measured in this process on a CPU: right ones have times, wrong ones have none, plans come back."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from validators.executors import layering
from validators.executors.lanes import ThreadLanes
from validators.executors.processes import run_ranks
from validators.executors.world import World
from validators.kernels import pointwise
from validators.validation.compare import compare_folder
from validators.validation.forecast import GpuPredictor
from validators.validation.plan import Planned, read_plan, write_plan
from validators.validation.runs import RunFolder
from validators.validation.step_configuration import StepConfiguration
from validators.validation.step_draws import KINDS, draw_steps
from validators.validation.step_measure import StepMeasurement

MODEL = StepConfiguration("model", 2, 64, 4, 2, 16, 96, 128, 256, 2, "cpu")
STEPS = {
    "full": MODEL,
    "lora": replace(MODEL, method="lora:rank=4", checkpoint="full", loss_chunks=4),
    "layer": replace(MODEL, what="layer", layers=1, checkpoint="full"),
}


class Alone:
    """A world of one process."""

    rank, size, backend, device = 0, 1, "gloo", torch.device("cpu")

    def __init__(self) -> None:
        self.lanes = ThreadLanes()

    def gather(self, value: object) -> list[object]:
        return [value]

    collect = gather

    def share(self, value: object) -> object:
        return value

    def agree_on_start(self) -> int:
        return time.monotonic_ns()


def measure(configuration: StepConfiguration, rounds: int = 2):
    with torch.no_grad():
        return next(StepMeasurement(Alone(), configuration, 1, {}).run(["flash"], rounds))


@pytest.mark.parametrize("name", STEPS)
def test_a_right_step_has_times_and_a_timeline_of_the_same_operations(name: str) -> None:
    run, timeline = measure(STEPS[name])
    assert run.outcome == "measured"
    assert len(run.samples_s) == 2
    assert 0 < run.errors["gradients"] <= 2 * run.errors["plain gradients"] + 2e-3
    assert [each.kind for each in timeline.operations] == [
        each.kind for each in STEPS[name].program("flash").operations
    ]


@pytest.mark.parametrize("name", ["swiglu_backward", "rms_norm_dw", "adamw"])
def test_a_wrong_kernel_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(pointwise, name)

    def wrong(*tensors: torch.Tensor) -> torch.Tensor | None:
        if name == "rms_norm_dw":
            return 1.1 * right(*tensors)
        if name == "adamw":
            return right(*tensors[:-1], {**tensors[-1], "learning_rate": 2e-3})
        right(*tensors)
        tensors[-1].mul_(1.1)
        return None

    monkeypatch.setattr(layering.pointwise, name, wrong)
    run, timeline = measure(MODEL, 1)
    assert run.outcome == "wrong"
    assert not run.samples_s
    assert timeline is None


def _outcomes(world: World, wrong: bool) -> list[tuple[str, str]]:
    """Of a model and a layer by some schedules; rank 1 alone updates its weights wrongly where it is to be wrong."""
    torch.set_num_threads(1)
    if wrong and world.rank == 1:
        right = pointwise.adamw
        layering.pointwise.adamw = lambda *tensors: right(*tensors[:-1], {**tensors[-1], "learning_rate": 2e-3})
    found = []
    for step, spec in (("full", "ring"), ("lora", "ulysses"), ("layer", "ring:partition=contiguous"), ("full", "magi")):
        configuration = replace(STEPS[step], ranks=2, ranks_per_node=2)
        with torch.no_grad():
            run, _ = next(StepMeasurement(world, configuration, 1, {}).run([spec], 1))
        found.append((run.outcome, run.detail or ""))
    return found


@pytest.mark.parametrize("wrong", [False, True])
def test_steps_of_two_processes_are_checked_on_each_of_them(wrong: bool) -> None:
    """What rank 1 alone has wrong is found, though rank 0 has it right; a layer's step has no update."""
    outcomes = [outcome for outcome, _ in run_ranks(2, _outcomes, wrong)[0]]
    assert outcomes == (["wrong", "wrong", "measured", "wrong"] if wrong else ["measured"] * 4)


def test_a_planned_step_comes_back_and_is_not_measured_twice(tmp_path: Path) -> None:
    planned = Planned(STEPS["lora"], ("flash",), 2, 7)
    write_plan(tmp_path / "plan.json", [planned])
    assert read_plan(tmp_path / "plan.json") == [planned]
    folder = RunFolder(tmp_path / "runs")
    run, timeline = measure(STEPS["lora"], 1)
    folder.add_with(run, timeline)
    again = RunFolder(tmp_path / "runs")
    assert again.runs[run.id].configuration == STEPS["lora"]
    assert planned.missing(again.runs, "gloo") == []
    assert planned.missing(again.runs, "nccl") == ["flash"]


def test_a_measured_step_is_predicted_by_the_same_program(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    configuration = replace(MODEL, kernel="cudnn")
    run, timeline = measure(MODEL, 1)
    folder.add_with(replace(run, configuration=configuration), timeline)
    (agreement,) = compare_folder(folder, GpuPredictor("h100-sxm", "dgx-h100"))
    assert {kind.kind for kind in agreement.kinds} >= {"linear", "linear_dw", "adamw", "cross_entropy"}
    assert agreement.predicted_s > 0


def test_draws_have_every_kind_are_bounded_and_depend_on_the_seed_only() -> None:
    def forecast(configuration: StepConfiguration, spec: str) -> tuple[float, float, bool]:
        return configuration.seq_len * configuration.batch / 40000, 0.0, configuration.hidden < 8192

    planned = draw_steps(16, 3, 2, forecast)
    assert planned == draw_steps(16, 3, 2, forecast) != draw_steps(16, 4, 2, forecast)
    kinds = [(each.configuration.what, each.configuration.method, each.configuration.checkpoint) for each in planned]
    assert kinds == list(KINDS) * 2
    assert all(forecast(each.configuration, "flash")[0] <= 1.2 for each in planned)
    assert all(each.configuration.seq_len & (each.configuration.seq_len - 1) for each in planned)


def test_draws_of_several_ranks_are_of_one_context_parallel_group_and_all_schedules() -> None:
    planned = draw_steps(16, 3, 2, lambda configuration, spec: (0.1, 0.3, True), ranks=2)
    assert (
        {each.configuration.ranks for each in planned} == {each.configuration.ranks_per_node for each in planned} == {2}
    )
    assert {each.schedules[0].partition(":")[0] for each in planned} == {
        "ring",
        "ulysses",
        "burst",
        "allgather",
        "usp",
        "magi",
    }

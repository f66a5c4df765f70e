"""Plans: candidates, ranking, front, bound, first look, and the same answer wherever it is computed."""

from __future__ import annotations

import json
from typing import Any

import pytest

import attnsim
from simulator.planning import plan as module
from simulator.planning.objective import Price
from simulator.planning.pareto import pareto_front
from simulator.planning.plan import PlanResult, plan
from simulator.planning.points import digest, run_point
from simulator.planning.runners import Here, open_runner
from simulator.planning.space import list_candidates
from simulator.request import SimulationRequest
from traces.display import format_ns
from traces.errors import InputError

ATTENTION = SimulationRequest(heads=8, kv_heads=8, head_dim=64, seq_len="16k", gpus=4, topology="dgx-h100")


def names(found: PlanResult) -> list[str]:
    return [each["candidate"] for each in found.candidates]


@pytest.fixture(scope="module")
def attention() -> PlanResult:
    return plan(ATTENTION, Here(), top=3)


def test_the_best_is_what_compare_says(attention: PlanResult) -> None:
    options = {
        name: getattr(ATTENTION, name) for name in ("heads", "kv_heads", "head_dim", "seq_len", "gpus", "topology")
    }
    compared = attnsim.compare(**options, engine="maxplus", pass_="both", timeline=False)
    best = attention.candidates[0]
    fastest = min(each.time_s for each in compared if isinstance(each, attnsim.SimulationResult) and each.exact)
    assert best["time_s"] <= fastest
    assert best["result"]["time_s"] == best["time_s"]
    assert best["tokens_per_s_per_gpu"] == pytest.approx(16384 / best["time_s"] / 4)


def test_every_candidate_is_among_the_best_or_dropped_with_a_reason(attention: PlanResult) -> None:
    listed = {str(each) for each in list_candidates(ATTENTION)}
    dropped = {each["candidate"]: each["reason"] for each in attention.dropped}
    assert listed == dropped.keys() | set(names(attention))
    assert not dropped.keys() & set(names(attention))
    assert all(dropped.values())
    assert any("it is approximate" in reason or "inference only" in reason for reason in dropped.values())


def test_the_plan_is_json(attention: PlanResult) -> None:
    data = json.loads(json.dumps(attention.to_json(), allow_nan=False))
    assert {"candidates", "pareto", "dropped", "sensitivity"} <= data.keys()
    assert data["candidates"][0]["limits"][0]["share"] <= 1


def test_sensitivity_of_a_compute_bound_plan_is_the_tensor_cores(attention: PlanResult) -> None:
    assert next(iter(attention.sensitivity)) in ("flop", "host")
    assert all(0 < each < 1.1 for each in attention.sensitivity.values())


@pytest.mark.parametrize(
    ("objective", "name", "sign"),
    [("time", "time_s", 1), ("throughput", "tokens_per_s_per_gpu", -1), ("memory", "peak_memory_bytes", 1),
     ("cost", "usd_per_million_tokens", 1)],
)  # fmt: skip
def test_objectives_order_the_candidates(objective: str, name: str, sign: int) -> None:
    found = plan(ATTENTION, Here(), objective=objective, top=4, axes={"kernel": ["flash2"]}, price=Price(2.0, "test"))
    values = [sign * each[name] for each in found.candidates]
    assert values == sorted(values)


def test_slow_candidates_are_stopped_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAVE", 2)
    monkeypatch.setattr(module, "SLACK", 1.01)
    found = plan(ATTENTION, Here(), top=1)
    stopped = [each for each in found.dropped if each["reason"].startswith("too slow")]
    assert stopped
    whole = run_point({**module.base_point(ATTENTION), **_options(stopped[0]["candidate"])})
    assert whole["time_s"] > found.candidates[0]["time_s"]


def _options(candidate: str) -> dict[str, str]:
    schedule, kernel = candidate.split(" kernel=")
    return {"schedule": schedule, "kernel": kernel}


def test_reasons_are_summed_up_where_nothing_can_run() -> None:
    """However many there are, the message is short; all of them are in `dropped`."""
    heads = [f"{n} heads are not divisible by {2 * n} ranks" for n in range(1, 60)]
    others = [f"{letter} is not to be" for letter in "abcdefg"]
    found = PlanResult("time", dropped=[{"candidate": "x", "reason": reason} for reason in heads + others])
    reason = module._reasons(found)
    assert reason.startswith(": 1 heads are not divisible by 2 ranks (and 58 candidates alike); a is not to be; ")
    assert reason.endswith("other reasons against 5")
    found.interrupted = True
    assert module._reasons(found).startswith(" before the interruption; out by then: 1 heads")


def test_axes_restrict_and_extend_the_search() -> None:
    found = list_candidates(ATTENTION, {"schedule": ["ring", "burst:grad=fp32"], "kernel": ["flash2", "cudnn"]})
    assert {str(each) for each in found} == {
        f"{schedule} kernel={kernel}"
        for schedule in ("ring:partition=zigzag,grad=fp32", "burst:ring=flat,partition=zigzag,grad=fp32")
        for kernel in ("flash2", "cudnn")
    }
    with pytest.raises(InputError, match="does not search"):
        list_candidates(ATTENTION, {"seq_len": [1]})


def test_nothing_that_can_run_is_refused_with_the_reasons() -> None:
    with pytest.raises(InputError, match="nothing can run: 6 heads are not divisible by 4 ranks"):
        plan(SimulationRequest(heads=6, kv_heads=6, head_dim=64, seq_len="16k", gpus=4, topology="dgx-h100"),
             Here(), axes={"schedule": ["ulysses"]})  # fmt: skip


def test_an_interruption_keeps_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAVE", 1)

    class Impatient(Here):
        calls = 0

        def run(self, *arguments: Any) -> Any:
            Impatient.calls += 1
            if Impatient.calls > 3:
                raise KeyboardInterrupt
            yield from super().run(*arguments)

    found = plan(ATTENTION, Impatient(), top=5)
    assert found.interrupted
    assert 1 <= len(found.candidates) <= 3


def test_processes_and_a_cluster_give_the_same_plan(attention: PlanResult) -> None:
    distributed = pytest.importorskip("distributed")
    axes = {"schedule": ["ring", "ulysses", "burst"], "kernel": ["flash2"]}
    here = plan(ATTENTION, Here(), axes=axes).to_json()
    with open_runner(2) as runner:
        assert plan(ATTENTION, runner, axes=axes).to_json() == here
    local = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with local as cluster, open_runner(scheduler=cluster.scheduler_address) as runner:
        assert plan(ATTENTION, runner, axes=axes).to_json() == here
        with distributed.Client(cluster) as client:
            assert not any(client.run(is_profiled).values()), "a profiler holds frames, and so buffers"


def is_profiled(dask_worker: Any) -> bool:
    """Whether a worker samples its stack."""
    return bool(dask_worker.periodic_callbacks["profile"].is_running())


def test_an_outcome_is_taken_from_the_cache_until_its_inputs_change(tmp_path: Any) -> None:
    point = {**module.base_point(ATTENTION), "schedule": "ring"}
    folder = str(tmp_path / "cache")
    first = run_point(point, cache_folder=folder)
    (path,) = (tmp_path / "cache").iterdir()
    path.write_text(json.dumps(first | {"time_s": 123.0}))
    assert run_point(point, cache_folder=folder)["time_s"] == 123.0
    assert run_point({**point, "seq_len": "32k"}, cache_folder=folder)["time_s"] != 123.0
    path.write_text("{")
    assert run_point(point, cache_folder=folder) == first
    assert digest(point) != digest({**point, "batch": 2})


@pytest.mark.parametrize(("option", "text"), [("mask", "document:lengths=@{},causal=true"), ("hardware", "{}"),
                                              ("topology", "{}"), ("model", "{}"), ("routing", "@{}")])  # fmt: skip
def test_an_outcome_is_stale_when_a_file_that_it_read_has_changed(tmp_path: Any, option: str, text: str) -> None:
    file = tmp_path / "lengths.txt"
    file.write_text("4096 4096")
    point = {**module.base_point(ATTENTION), "schedule": "ring", option: text.format(file)}
    before = digest(point)
    assert digest(point) == before
    file.write_text("2048 6144")
    assert digest(point) != before


def test_front_of_random_rows_is_what_the_definition_says() -> None:
    import numpy as np

    rows = np.random.default_rng(0).integers(0, 6, (60, 3)).astype(float)
    front = pareto_front(rows)
    for index, row in enumerate(rows):
        dominated = any(np.all(other <= row) and np.any(other < row) for other in rows)
        assert dominated == (tuple(row) not in {tuple(rows[kept]) for kept in front}), index


def test_the_table_says_between_what_each_time_lies(capsys: pytest.CaptureFixture[str]) -> None:
    shape = ["--heads", "8", "--head-dim", "64", "--seq-len", "8k", "--gpus", "4", "--topology", "dgx-h100"]
    with pytest.raises(SystemExit):
        attnsim.main(["plan", "--layers", "attention", "--top", "1", *shape, "--workers", "1", "--json", "-"])
    out, err = capsys.readouterr()
    best = json.loads(out)["candidates"][0]
    for name in ("low_s", "high_s"):
        assert format_ns(best[name] * 1e9) in err


def test_no_command_is_cut_short_in_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        attnsim.main(["--help"])
    commands = capsys.readouterr().out.partition("Commands:")[2].splitlines()
    assert len(commands) > 10 and not [line for line in commands if line.endswith("...")]

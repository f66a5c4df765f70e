"""Slow ranks and links, lost links and ranks, and jitter, through the whole path."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import attnsim
from simulator.compare import Refused
from simulator.faults import FaultOptions
from simulator.jitter import draw_step_times
from simulator.result import SimulationResult
from tests.simulator.engines.random_programs import RandomCosts, random_program
from tests.simulator.engines.test_conformance import run_maxplus
from traces.errors import InputError

EIGHT: dict[str, Any] = {
    "heads": 32,
    "kv_heads": 8,
    "head_dim": 128,
    "seq_len": "16k",
    "gpus": 8,
    "topology": "dgx-h100",
}


def run(schedule: str = "ring", **options: Any) -> SimulationResult:
    return attnsim.simulate(schedule=schedule, **{**EIGHT, **options})


@pytest.mark.parametrize("engine", ["maxplus", "des"])
def test_a_slow_rank_slows_its_kernels_and_makes_others_wait(engine: str) -> None:
    whole = run(engine=engine, interference=False)
    slow = run(engine=engine, interference=False, slow_rank=["3:1.5"])
    assert whole.timeline and slow.timeline
    for rank, factor in ((3, 1.5), (4, 1.0)):
        before, after = (
            sum(each.timeline.end_ns[rows] - each.timeline.start_ns[rows])
            for each in (whole, slow)
            for rows in [_kernels(each, rank)]
        )
        assert after == pytest.approx(factor * before, rel=1e-3)
    assert whole.time_s < slow.time_s < 1.5 * whole.time_s + 1e-3


def _kernels(result: SimulationResult, rank: int) -> np.ndarray[Any, Any]:
    assert result.timeline
    compute = np.array([info.category == "compute" for info in result.timeline.operations])
    return np.flatnonzero((result.timeline.rank == rank) & compute[result.timeline.operation])


def test_engines_agree_on_slow_ranks() -> None:
    slow = [run(engine=engine, slow_rank=["3:1.5", "5:1.1"], interference=False) for engine in ("maxplus", "des")]
    assert slow[0].time_s == slow[1].time_s


@pytest.mark.parametrize("schedule", ["ring", "ulysses", "allgather"])
def test_a_slow_link_slows_rings_and_collectives(schedule: str) -> None:
    whole, slow = run(schedule), run(schedule, slow_link=["gpu:3->nvs:0:0.05"])
    assert slow.communication_s > 1.5 * whole.communication_s and slow.time_s > whole.time_s


def test_a_lost_link_is_routed_around_or_refused() -> None:
    whole, cut = run(), run(lost=["gpu:3->nvs:0"])
    assert cut.time_s > whole.time_s
    with pytest.raises(InputError, match="ranks are cut off: got ranks 2, 10"):
        run(gpus=16, lost=["leaf:2->spine"])


def test_a_lost_rank_names_who_waits_for_whom() -> None:
    with pytest.raises(InputError, match="without rank 3 the run does not end") as caught:
        run(lost_rank="3")
    assert "rank 2 waits for rank 3 in exchange 0 (forward, comm:ring)" in caught.value.message
    with pytest.raises(InputError, match="rank 0 waits for rank 3 in all_to_all"):
        run("ulysses", lost_rank="3")
    assert run(lost_rank="3:10").time_s == run(engine="des").time_s, "it is lost after the end"
    with pytest.raises(InputError, match="nobody waits for it, but its part is missing"):
        run("star", lost_rank="3", pass_="forward")


def test_a_comparison_says_of_every_schedule_what_a_lost_rank_does() -> None:
    found = attnsim.compare(**{**EIGHT, "seq_len": "64k"}, lost_rank="3")
    reasons = [each.reason for each in found if isinstance(each, Refused)]
    assert len(reasons) == len(found) > 10
    assert [each for each in reasons if "without rank 3 the run does not end" not in each] == [
        "flash runs on one GPU: got 8 ranks"
    ]


def test_jitter_spreads_the_time_and_the_same_seed_gives_the_same_draws() -> None:
    calm, result = run(), run(jitter=0.1, seed=1, draws=300)
    times = result.step_times
    assert times is not None and calm.step_times is None and result.time_s == calm.time_s
    assert times.min_s < times.p5_s < times.p50_s < times.p95_s < times.p99_s <= times.max_s
    assert calm.time_s < times.mean_s < 1.2 * calm.time_s, "steps wait for the slowest rank"
    assert run(jitter=0.1, seed=1, draws=300).step_times == times != run(jitter=0.1, seed=2, draws=300).step_times
    assert SimulationResult.from_json(json.loads(json.dumps(result.to_json()))) == result


@pytest.mark.parametrize("seed", range(20))
def test_draws_of_any_program_without_jitter_are_its_makespan(seed: int) -> None:
    """All draws at once go through the same recurrence as one run."""
    program = random_program(seed)
    costs = RandomCosts(program, seed)
    times = draw_step_times(program, costs, 0.0, 0, 3)
    assert times.min_s == times.max_s == run_maxplus(program, costs).makespan_ns / 1e9


def test_inputs_name_faults_and_reproduce_them() -> None:
    given = {"slow_rank": ["3:1.5"], "slow_link": ["gpu:3->nvs:0:0.5"], "lost": ["gpu:4->nvs:0"], "jitter": 0.05}
    result = run(**given)
    assert {**given, "seed": 0, "draws": 200}.items() <= result.inputs.items()
    again = attnsim.simulate(**{name.replace("pass", "pass_"): value for name, value in result.inputs.items()})
    assert again == result


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slow_rank": ["8:1.2"]}, "slow-rank names no rank: got 8, expected 0 to 7"),
        ({"slow_rank": ["3"]}, "slow-rank is malformed"),
        ({"slow_rank": ["3:0"]}, "out of range"),
        ({"slow_link": ["gpu:3->nvs"]}, "slow-link is malformed"),
        ({"slow_link": ["gpu:3->nvs:0"]}, "share of link gpu:3->nvs is out of range"),
        ({"slow_link": ["gpu:30->nvs:0:0.5"]}, "no such link"),
        ({"slow_rank": ["3:1.2", "3:1.5"]}, "slow-rank names a rank twice"),
        ({"slow_link": ["gpu:3->nvs:0:0.5", "gpu:3->nvs:0:0.2"]}, "slow-link names a link twice"),
        ({"lost": ["gpu:3->nvs:0", "gpu:3->nvs:0"]}, "lost names a link twice"),
        ({"lost": ["gpu:3->nvs:0"], "slow_link": ["gpu:3->nvs:0:0.5"]}, "a link is lost and slow"),
        ({"lost": ["mem:0.0->cpu:0.0"]}, "memory of the host cannot be lost"),
        ({"lost": ["gpu:3"]}, "no such link or port: got gpu:3"),
        ({"lost_rank": "9"}, "lost-rank names no rank"),
        ({"lost_rank": "1:soon"}, "lost-rank is malformed"),
        ({"jitter": 2.0}, "jitter is out of range"),
        ({"jitter": 0.1, "draws": 0}, "draws is out of range"),
        ({"jitter": 0.1, "seed": -1}, "seed is negative"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(**options)


def test_defaults_are_nothing() -> None:
    assert FaultOptions().given == {} and FaultOptions().factors(8) == {} and FaultOptions().loss(8) is None

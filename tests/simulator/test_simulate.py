"""``simulate`` and ``compare`` end to end: what the contract says of a result, on every schedule."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

import attnsim
from simulator import run as running
from simulator.result import Refused, SimulationResult
from simulator.schedules import SCHEDULES
from simulator.schedules.minference import computed_share
from traces.errors import InputError

EXACT = [name for name, kind in SCHEDULES.items() if kind.exact]
SMALL: dict[str, Any] = {"heads": 8, "kv_heads": 8, "head_dim": 64, "seq_len": 4096, "gpus": 4, "topology": "dgx-h100"}


def run(schedule: str, **options: Any) -> SimulationResult:
    return attnsim.simulate(**{**SMALL, "schedule": schedule, **options})


@pytest.mark.parametrize(("schedule", "pass_"), [*product(SCHEDULES, ("forward", "backward", "both"))])
def test_times_add_up(schedule: str, pass_: str) -> None:
    if pass_ != "forward" and not SCHEDULES[schedule]().has_backward:
        with pytest.raises(InputError, match="inference only"):
            run(schedule, pass_=pass_)
        return
    ranks = {"gpus": 1} if schedule in ("flash", "minference") else {}
    result = run(schedule, pass_=pass_, **ranks)
    assert result.time_s == pytest.approx(result.forward_s + result.backward_s, abs=1e-12)
    assert (result.forward_s > 0, result.backward_s > 0) == (pass_ != "backward", pass_ != "forward")
    assert result.compute_s + result.exposed_communication_s <= result.time_s * (1 + 1e-12)
    assert 0 <= result.exposed_communication_s <= result.communication_s
    assert result.breakdown is not None
    assert sum(result.breakdown.values()) == round(result.time_s * 1e9)
    assert result.uncertainty.low_s < result.time_s < result.uncertainty.high_s


@pytest.mark.parametrize("name", ["ring", "ulysses", "burst"])
def test_backward_alone_and_both_agree_on_work(name: str) -> None:
    forward, backward, both = (run(name, pass_=pass_) for pass_ in ("forward", "backward", "both"))
    assert both.flop_total == forward.flop_total + backward.flop_total
    assert both.bytes_sent_per_rank == tuple(
        a + b for a, b in zip(forward.bytes_sent_per_rank, backward.bytes_sent_per_rank, strict=True)
    )
    assert backward.pairs_total == 0
    assert forward.pairs_total == both.pairs_total == 4096 * 4097 // 2


@pytest.mark.parametrize("name", ["ring", "ulysses", "burst", "apb"])
def test_both_engines_give_the_same_result_where_nothing_is_shared(name: str) -> None:
    fields = ("time_s", "forward_s", "exposed_communication_s", "peak_memory_bytes", "bytes_sent_per_rank")
    by_engine = [run(name, engine=engine) for engine in ("maxplus", "des")]
    assert [each.engine for each in by_engine] == ["maxplus", "des"]
    for field in fields:
        assert getattr(by_engine[0], field) == getattr(by_engine[1], field), field


def test_inputs_reproduce_the_run() -> None:
    result = run("burst:grad=fp32", mask="sliding-window:window=1k,causal=true", nodes=2, batch=2)
    again = attnsim.simulate(**{name.replace("pass", "pass_"): value for name, value in result.inputs.items()})
    assert again == result


def test_many_ranks_are_simulated_without_being_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = run("ring", gpus=8)
    monkeypatch.setattr(running, "KEPT_RANKS", 4)
    told: list[tuple[str, int, int]] = []
    streamed = attnsim.simulate(**{**SMALL, "schedule": "ring", "gpus": 8}, progress=lambda *what: told.append(what))
    assert streamed.timeline is None
    assert streamed.warnings[:-1] == kept.warnings and "above 256 ranks" in streamed.warnings[-1]
    assert replace(streamed, warnings=()) == replace(kept, warnings=())
    assert streamed.breakdown == kept.breakdown
    assert told[0] == ("ring forward", 1, 8)


def test_what_does_not_fit_is_a_result_of_simulate_and_a_refusal_of_compare() -> None:
    options = {**SMALL, "heads": 64, "kv_heads": 64, "head_dim": 128, "seq_len": "8M"}
    result = attnsim.simulate(**options, schedule="ring")
    assert not result.fits
    refused = [each for each in attnsim.compare(**options) if isinstance(each, Refused)]
    assert any("out of memory: needs" in each.reason and each.schedule.startswith("ring") for each in refused)


def test_compare_ranks_exact_then_approximate_then_refused() -> None:
    outcomes = attnsim.compare(**{**SMALL, "heads": 6, "kv_heads": 6})
    results = [each for each in outcomes if isinstance(each, SimulationResult)]
    exact = [each for each in results if each.exact]
    assert outcomes[: len(results)] == results
    assert results[: len(exact)] == exact
    for group in (exact, results[len(exact) :]):
        assert [each.time_s for each in group] == sorted(each.time_s for each in group)
    reasons = {each.schedule: each.reason for each in outcomes if isinstance(each, Refused)}
    assert reasons["ulysses"] == "6 heads are not divisible by 4 ranks"


def test_an_explicit_backward_refuses_schedules_for_inference() -> None:
    refused = [each for each in attnsim.compare(**SMALL, pass_="both") if isinstance(each, Refused)]
    reasons = {each.schedule.split(":")[0]: each.reason for each in refused}
    assert "apb is for inference only" in reasons["apb"]


def test_shapes_beyond_the_measurements_widen_the_interval_and_warn() -> None:
    near, far = run("ring", head_dim=128, seq_len="64k"), run("ring", head_dim=128, seq_len="4M")
    assert far.uncertainty.extrapolated
    assert not near.uncertainty.extrapolated
    assert any("queries, measured were" in warning for warning in far.warnings)
    assert far.uncertainty.high_s / far.time_s > near.uncertainty.high_s / near.time_s


def test_no_schedule_named_is_refused() -> None:
    with pytest.raises(InputError, match="no schedule is named"):
        attnsim.simulate(**SMALL)
    with pytest.raises(InputError, match="compare simulates all schedules"):
        attnsim.compare(**SMALL, schedule="ring")


@pytest.mark.parametrize(("vertical", "slash"), [(875, 1220), (100, 200)])
def test_minference_is_priced_as_its_share_of_the_causal_kernels_tiles(vertical: int, slash: int) -> None:
    """Not as a window, all of whose tiles flash kernels mask: Triton's causal time times the share, and the index."""
    one = {"gpus": 1, "seq_len": 2**16, "heads": 32, "kv_heads": 8, "head_dim": 128, "pass_": "forward"}
    dense = run("flash", kernel="triton", **one).time_s
    sparse = run(f"minference:vertical={vertical},slash={slash}", **one)
    share = computed_share(2**16, vertical, slash)
    assert 1.0 < sparse.time_s / (share * dense) < 1.15
    assert sparse.pairs_total == pytest.approx(share * 2**31, rel=0.01)

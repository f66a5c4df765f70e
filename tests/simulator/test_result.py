"""The result's JSON: its fields, its round trip, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.result import (
    SCHEMA_VERSION,
    Refused,
    SaturatedLink,
    SimulationResult,
    SlowedTransfer,
    Uncertainty,
    json_fields,
)
from tests.simulator.examples import example_result, example_timeline
from traces.errors import InputError

# What users script against, with JSON's types. Adding is free; changing one means raising SCHEMA_VERSION.
RESULT_SCHEMA = {
    "schema_version": int,
    "schedule": str,
    "inputs": dict,
    "engine": str,
    "provenance": dict,
    "warnings": list,
    "time_s": float,
    "forward_s": float,
    "backward_s": float,
    "compute_s": float,
    "communication_s": float,
    "exposed_communication_s": float,
    "peak_memory_bytes": int,
    "reserved_memory_bytes": int,
    "host_memory_bytes": int,
    "fits": bool,
    "exact": bool,
    "bytes_sent_per_rank": list,
    "pairs_total": int,
    "flop_total": int,
    "other_s": float,
    "rank_imbalance": float,
    "step_imbalance": float,
    "uncertainty": dict,
    "saturated_links": list,
    "step_times": type(None),
}
seconds = st.floats(0, 1e6)
counts = st.integers(0, 2**70)


def test_result_schema() -> None:
    data = example_result().to_json()
    assert SCHEMA_VERSION == 1
    assert {name: type(value) for name, value in data.items()} == RESULT_SCHEMA
    assert {name: type(value) for name, value in data["uncertainty"].items()} == {
        "low_s": float,
        "high_s": float,
        "level": float,
        "extrapolated": bool,
    }
    assert set(json_fields(SimulationResult)) == set(RESULT_SCHEMA)


@given(seconds, counts, st.booleans(), st.lists(counts, max_size=4), st.lists(seconds, min_size=2, max_size=2))
def test_round_trip(time_s: float, n: int, flag: bool, sent: list[int], bounds: list[float]) -> None:
    links = (SaturatedLink("gpu:0->nvs:0", time_s, (SlowedTransfer("ring 0->1", time_s),)),) if flag else ()
    result = example_result(
        time_s=time_s,
        fits=flag,
        pairs_total=n,
        bytes_sent_per_rank=tuple(sent),
        uncertainty=Uncertainty(*bounds),
        saturated_links=links,
    )
    text = json.dumps(result.to_json(), allow_nan=False)
    assert SimulationResult.from_json(json.loads(text)) == result


def test_round_trip_of_a_refusal() -> None:
    refused = Refused("ulysses", "3 heads on 2 GPUs")
    assert refused.to_json() == {"schedule": "ulysses", "reason": "3 heads on 2 GPUs"}
    assert Refused.from_json(refused.to_json()) == refused


def test_what_is_large_stays_out_of_the_json() -> None:
    result = example_result(timeline=example_timeline(), breakdown={"idle": 7}, memory_curve=(("start", 1),))
    assert result.to_json() == example_result().to_json()
    assert result == example_result()


def test_whole_seconds_may_be_written_without_a_point() -> None:
    data = example_result().to_json() | {"time_s": 1}
    assert SimulationResult.from_json(data).time_s == 1.0


@pytest.mark.parametrize("name", RESULT_SCHEMA)
def test_a_missing_field_is_named(name: str) -> None:
    data = example_result().to_json()
    del data[name]
    with pytest.raises(InputError, match=f"lacks a field: expected {name}"):
        SimulationResult.from_json(data)


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(InputError, match="unknown field: got time_ms"):
        SimulationResult.from_json(example_result().to_json() | {"time_ms": 1})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"fits": 1}, "fits"),
        ({"pairs_total": True}, "pairs_total"),
        ({"pairs_total": 1.0}, "pairs_total"),
        ({"time_s": "1"}, "time_s"),
        ({"time_s": None}, "time_s"),
        ({"time_s": float("nan")}, "time_s"),
        ({"inputs": []}, "inputs"),
        ({"warnings": "none"}, "warnings"),
        ({"warnings": [1]}, r"warnings\[0\]"),
        ({"bytes_sent_per_rank": [0, 0.5]}, r"bytes_sent_per_rank\[1\]"),
        ({"uncertainty": None}, "uncertainty"),
        ({"uncertainty": {"low_s": 0.0}}, "uncertainty lacks a field"),
        ({"uncertainty": {"low_s": "0", "high_s": 1.0, "level": 0.9, "extrapolated": False}}, r"uncertainty\.low_s"),
        ({"schema_version": 2}, "another schema_version"),
    ],
)
def test_wrong_types_are_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=field):
        SimulationResult.from_json(example_result().to_json() | changes)


@pytest.mark.parametrize("data", [None, [], "{}", 1])
def test_only_objects_are_results(data: object) -> None:
    with pytest.raises(InputError, match="result has the wrong type"):
        SimulationResult.from_json(data)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), object(), {1, 2}])
def test_what_json_cannot_hold_is_our_mistake(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        example_result(provenance={"nested": [value]}).to_json()

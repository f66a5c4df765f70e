"""Summaries: what is busy and idle adds up, causes are told apart, and real traces say what we know of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from tests.traces.kineto.places import RECORDED
from tests.traces.strategies import timelines
from tests.traces.synthetic import from_rows, ring_timeline
from traces.idle import idle_by_cause
from traces.intervals import Intervals
from traces.kineto import read_recording
from traces.kineto.facts import Sync, Window
from traces.kineto.recording import Recording
from traces.launches import Launches
from traces.metrics import breakdown, exposed_communication_ns, overlap_ns
from traces.summary import summarise
from traces.timeline import OperationInfo, Timeline


def recording(timeline: Timeline, launches: Launches | None = None, **changes: object) -> Recording:
    nothing: tuple[tuple[()], ...] = ((),) * timeline.n_ranks
    fields: dict[str, object] = {
        "windows": nothing,
        "syncs": nothing,
        "waits": nothing,
        "communication": {},
        "on_device": True,
    }
    launches = launches or Launches.none(len(timeline))
    zero = np.zeros(timeline.n_ranks, dtype=np.int64)
    return Recording(timeline, launches, clock_offset_ns=zero, warnings=(), **(fields | changes))  # type: ignore[arg-type]


@settings(max_examples=60)
@given(timelines())
def test_parts_add_up_and_agree_with_the_metrics(timeline):
    for step in summarise(recording(timeline)).steps:
        busy = step.compute_ns + step.exposed_communication_ns + step.copy_ns
        assert busy + sum(step.idle_ns.values()) == step.window_ns == timeline.makespan_ns
        assert step.exposed_communication_ns == exposed_communication_ns(timeline, step.rank)
        assert step.overlap_ns == overlap_ns(timeline, step.rank)
        assert sum(step.idle_ns.values()) == breakdown(timeline, step.rank)["idle"]
        assert 0 <= step.wait_ns <= step.exposed_communication_ns


def test_causes_of_idleness():
    """One gap of 100 µs: 20 of it the host waits, 30 it works, 10 the GPU takes, 40 another stream."""
    infos = [OperationInfo(i, "k", "gemm", "forward", 0, "compute") for i in range(2)]
    timeline = from_rows(infos, [(0, 100_000, 0, 0, 0, 0), (200_000, 250_000, 0, 0, 1, 0)], 1)
    launches = Launches(np.array([0, 145_000]), np.array([0, 150_000]))
    window = Intervals(np.array([0]), np.array([260_000]))
    syncs = [Sync(50_000, 120_000, -1)]
    assert idle_by_cause(timeline, 0, launches, window, syncs=syncs) == {
        "host": 30_000, "synchronisation": 20_000, "launch": 10_000, "dependency": 40_000, "unexplained": 0,
        "tail": 10_000,
    }  # fmt: skip
    unknown = idle_by_cause(timeline, 0, Launches.none(2), window)
    assert (unknown["unexplained"], unknown["tail"]) == (100_000, 10_000)


def test_waiting_for_the_last_rank():
    infos = [OperationInfo(0, "gather", "all_gather", "forward", 0, "communication")]
    timeline = from_rows(infos, [(10, 100, 0, 0, 0, 1), (70, 101, 1, 0, 0, 1), (40, 99, 2, 0, 0, 1)], 3)
    assert [step.wait_ns for step in summarise(recording(timeline)).steps] == [60, 0, 30]


def test_steps_are_windows():
    timeline = ring_timeline(2)
    half = timeline.makespan_ns // 2
    windows = ((Window("7", 0, half), Window("8", half, timeline.makespan_ns)),) * 2
    steps = summarise(recording(timeline, windows=windows)).steps
    assert [(step.rank, step.step) for step in steps] == [(0, "7"), (0, "8"), (1, "7"), (1, "8")]
    assert sum(s.exposed_communication_ns for s in steps if s.rank == 1) == exposed_communication_ns(timeline, 1)


def test_a_big_layer_keeps_an_h100_busy_and_a_small_one_waits_for_the_host():
    big, small = (summarise(read_recording(RECORDED / f"h100-{name}.json.gz")) for name in ("kernels", "small"))
    last = big.steps[-1]
    assert last.compute_ns / last.window_ns > 0.85
    assert big.path.by_name()["compute/attention_backward"] > 0.3 * big.makespan_ns
    assert all(step.idle_ns["host"] > 0.8 * step.window_ns for step in small.steps)
    assert next(iter(small.path.by_name())) == "idle/host"


def test_json_is_seconds():
    data = summarise(read_recording(RECORDED / "gloo-ring")).to_json()
    assert data["time_s"] == pytest.approx(0.0417, rel=0.01)
    assert {"rank", "step", "window_s", "exposed_communication_s", "idle_s"} <= set(data["steps"][0])
    assert sum(data["critical_path_s"].values()) == pytest.approx(data["time_s"])

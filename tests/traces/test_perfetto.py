"""Chrome traces: what Perfetto, and tools that read PyTorch profiles, need of the files."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.traces.strategies import timelines
from tests.traces.synthetic import LANES, from_rows, ring_timeline
from traces import perfetto
from traces.errors import InputError
from traces.perfetto import FIRST_STREAM, write_traces
from traces.timeline import OperationInfo, Timeline


def read(folder: Path) -> list[dict[str, Any]]:
    """The files in the order of their ranks, decimals kept as they are written."""
    paths = sorted(folder.iterdir(), key=lambda path: int(path.stem.removeprefix("rank")))
    return [json.loads(path.read_text(), parse_float=Decimal) for path in paths]


def events(trace: dict[str, Any], phase: str) -> list[dict[str, Any]]:
    return [event for event in trace["traceEvents"] if event["ph"] == phase]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(timeline=timelines())
def test_every_row_comes_back_to_the_nanosecond(timeline, tmp_path):
    folder = tmp_path / "traces"
    write_traces(timeline, folder)
    rows = [
        (
            int(event["ts"] * 1000),
            int((event["ts"] + event["dur"]) * 1000),
            event["pid"],
            event["tid"] - FIRST_STREAM,
            event["args"]["operation"],
            event["args"]["bytes"],
        )
        for trace in read(folder)
        for event in events(trace, "X")
    ]
    assert timeline.same_as(from_rows(list(timeline.operations), rows, timeline.n_ranks, timeline.lanes))


def test_a_file_per_rank_even_where_a_rank_does_nothing(tmp_path):
    infos = [OperationInfo(0, "attention", "attention_forward", "forward", 0, "compute")]
    write_traces(from_rows(infos, [(0, 5, 1, 0, 0, 0)], 3), tmp_path / "t")
    traces = read(tmp_path / "t")
    assert [len(events(trace, "X")) for trace in traces] == [0, 1, 0]
    assert [trace["distributedInfo"]["rank"] for trace in traces] == [0, 1, 2]


def test_times_are_microseconds_with_three_decimals(tmp_path):
    infos = [OperationInfo(0, "attention", "attention_forward", "forward", 0, "compute")]
    write_traces(from_rows(infos, [(1_234_005, 9_007_199_254_740_993, 0, 0, 0, 0)], 1), tmp_path / "t")
    text = (tmp_path / "t" / "rank0.json").read_text()
    assert '"ts": 1234.005, "dur": 9007199253506.988' in text


def test_tracks_are_named_and_ordered(tmp_path):
    write_traces(ring_timeline(3), tmp_path / "t")
    for rank, trace in enumerate(read(tmp_path / "t")):
        named = {(event["name"], event["tid"]): event["args"] for event in events(trace, "M")}
        assert named["process_name", 0] == {"name": f"rank {rank}"}
        assert named["process_sort_index", 0] == {"sort_index": rank}
        for lane, name in enumerate(LANES):
            assert named["thread_name", FIRST_STREAM + lane] == {"name": name}
            assert named["thread_sort_index", FIRST_STREAM + lane] == {"sort_index": lane}
        assert {event["pid"] for event in trace["traceEvents"]} == {rank}


def test_lanes_that_a_rank_does_not_use_have_no_track(tmp_path):
    infos = [OperationInfo(0, "attention", "attention_forward", "forward", 0, "compute")]
    write_traces(from_rows(infos, [(0, 5, 0, 2, 0, 0)], 1), tmp_path / "t")
    names = [event["args"]["name"] for event in events(read(tmp_path / "t")[0], "M") if event["name"] == "thread_name"]
    assert names == [LANES[2]]


def test_events_of_a_track_are_in_order(tmp_path):
    """Perfetto nests events of a track by time; ours never overlap."""
    write_traces(ring_timeline(4), tmp_path / "t")
    for trace in read(tmp_path / "t"):
        ends: dict[int, Decimal] = {}
        for event in events(trace, "X"):
            assert event["ts"] >= ends.get(event["tid"], 0)
            ends[event["tid"]] = event["ts"] + event["dur"]


def test_facts_that_holistic_trace_analysis_needs(tmp_path):
    """The rank after a space, a stream for the device's rows alone, communication and copies told by the name."""
    infos = [
        OperationInfo(0, "attention", "attention_forward", "forward", 0, "compute"),
        OperationInfo(1, "send KV", "exchange", "forward", 0, "communication"),
        OperationInfo(2, "Memcpy DtoD", "pack", "forward", 0, "copy"),
        OperationInfo(3, "pack", "pack", "forward", 0, "copy"),
        OperationInfo(4, "launch", "launch", "forward", 0, "host"),
    ]
    rows = [(i, i + 1, 0, 3, i, 0) for i in range(5)]
    write_traces(from_rows(infos, rows, 2, ("a", "b", "c", "d")), tmp_path / "t")
    text = (tmp_path / "t" / "rank1.json").read_text()
    assert re.search(r'"rank":\s+1', text)
    found = events(read(tmp_path / "t")[0], "X")
    assert [(event["cat"], event["name"]) for event in found] == [
        ("kernel", "attention"),
        ("kernel", "ncclDevKernel_SendRecv send KV"),
        ("gpu_memcpy", "Memcpy DtoD"),
        ("gpu_memcpy", "Memcpy pack"),
        ("cpu_op", "launch"),
    ]
    assert all(re.match("^nccl.*Kernel", event["name"]) for event in found if event["args"]["kind"] == "exchange")
    assert [event["args"].get("stream") for event in found] == [FIRST_STREAM + 3] * 4 + [None]
    assert [event["args"].get("device") for event in found] == [0, 0, 0, 0, None]
    assert found[1]["args"] | {"phase": "forward", "kind": "exchange", "category": "communication"} == found[1]["args"]


def test_top_level_is_as_kineto_writes_it(tmp_path):
    write_traces(ring_timeline(2), tmp_path / "t")
    trace = read(tmp_path / "t")[1]
    assert (trace["schemaVersion"], trace["displayTimeUnit"], trace["baseTimeNanoseconds"]) == (1, "ms", 0)
    assert trace["distributedInfo"] == {"backend": "nccl", "rank": 1, "world_size": 2}
    assert trace["provenance"] == {"engine": "synthetic", "terms": ["published"]}


def test_names_cannot_break_the_json(tmp_path):
    name = 'a"},\n</script>\\ é'
    write_traces(
        from_rows([OperationInfo(0, name, "k", "p", 0, "compute")], [(0, 1, 0, 0, 0, 0)], 1, (name,)), tmp_path / "t"
    )
    trace = read(tmp_path / "t")[0]
    assert events(trace, "X")[0]["name"] == name
    assert events(trace, "M")[2]["args"]["name"] == name


def test_failure_in_the_last_rank_leaves_the_older_traces(tmp_path, monkeypatch):
    folder = tmp_path / "t"
    write_traces(ring_timeline(3), folder)
    before = read(folder)
    preamble = perfetto.preamble

    def full(timeline: Timeline, rank: int) -> str:
        if rank == 1:
            raise OSError(28, "No space left on device")
        return preamble(timeline, rank)

    monkeypatch.setattr(perfetto, "preamble", full)
    with pytest.raises(InputError, match="cannot write .*: got No space left on device"):
        write_traces(ring_timeline(2), folder)
    assert read(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(InputError, match="holds other files: got notes.txt"):
        write_traces(ring_timeline(2), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

"""Traces of all ranks as one timeline: our own come back, real ones are understood, clocks are aligned."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from tests.traces.kineto.places import GLOO, RECORDED, SINGLE
from tests.traces.strategies import timelines
from tests.traces.synthetic import ring_timeline
from traces.errors import InputError
from traces.kineto import read_recording
from traces.metrics import busy_ns
from traces.perfetto import write_traces
from traces.summary import summarise
from traces.timeline import Timeline


def rows(timeline: Timeline) -> list[tuple[object, ...]]:
    """Rows without the numbers that are chance, from the first start on."""
    first = int(timeline.start_ns.min(initial=1 << 60))
    found = []
    for i in range(len(timeline)):
        info = timeline.operations[timeline.operation[i]]
        times = int(timeline.start_ns[i]) - first, int(timeline.end_ns[i]) - first
        where = int(timeline.rank[i]), timeline.lanes[timeline.lane[i]]
        n_bytes = int(timeline.bytes[i]) if info.category == "communication" else 0
        found.append((*where, *times, info.category, info.kind, info.phase, info.step, n_bytes))
    return sorted(found, key=repr)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(timeline=timelines())
def test_our_own_traces_come_back(timeline, tmp_path):
    assume(len(set(timeline.rank.tolist())) == timeline.n_ranks)
    write_traces(timeline, tmp_path / "t")
    read = read_recording(tmp_path / "t")
    assert rows(read.timeline) == rows(timeline)
    shutil.rmtree(tmp_path / "t")


def test_one_operation_on_all_ranks_stays_one(tmp_path):
    timeline = ring_timeline(4)
    write_traces(timeline, tmp_path / "t")
    assert len(read_recording(tmp_path / "t").timeline.operations) == len(timeline.operations)


def strip_own_words(folder) -> None:
    """As another tool would have written them: no names of operations, kinds or steps."""
    for path in folder.iterdir():
        trace = json.loads(path.read_text(), parse_float=str)
        for event in trace["traceEvents"]:
            for name in ("operation", "kind", "category", "phase", "step"):
                event.get("args", {}).pop(name, None)
            for name in ("ts", "dur"):
                if name in event:
                    event[name] = float(event[name])
        path.write_text(json.dumps(trace))


def test_ranks_are_matched_by_their_communication(tmp_path):
    """Rank 2 skips an attention kernel; what comes after its next communication is matched all the same."""
    timeline = ring_timeline(3)
    skipped = next(
        i for i, info in enumerate(timeline.operations) if info.kind == "attention_forward" and info.step == 1
    )
    keep = ~((timeline.operation == skipped) & (timeline.rank == 2))
    columns = (getattr(timeline, name)[keep] for name in ("start_ns", "end_ns", "rank", "lane", "operation", "bytes"))
    write_traces(Timeline(timeline.operations, timeline.lanes, 3, *columns), tmp_path / "t")
    strip_own_words(tmp_path / "t")
    read = read_recording(tmp_path / "t").timeline
    per_operation = Counter(read.operation.tolist())
    communication = [i for i, info in enumerate(read.operations) if info.category == "communication"]
    assert all(per_operation[i] == 3 for i in communication)
    assert sorted(Counter(per_operation.values())) in ([2, 3], [1, 2, 3])
    backward = [i for i, info in enumerate(read.operations) if info.kind == "attention_backward"]
    assert backward and all(per_operation[i] == 3 for i in backward)


def test_clocks_of_two_machines_are_aligned(tmp_path):
    write_traces(ring_timeline(2), tmp_path / "t")
    for path in (tmp_path / "t").iterdir():
        text = path.read_text().replace('"provenance"', '"foreign"')
        if path.name == "rank1.json":
            text = text.replace('"baseTimeNanoseconds": 0', '"baseTimeNanoseconds": 7000000000')
        path.write_text(text)
    read = read_recording(tmp_path / "t")
    communication = [read.timeline.operations[o].category == "communication" for o in read.timeline.operation]
    ends = [read.timeline.end_ns[(read.timeline.rank == rank) & communication] for rank in (0, 1)]
    assert read.clock_offset_ns[1] == pytest.approx(-7_000_000_000, abs=7_000_000)
    assert np.abs(ends[0] - ends[1]).max() < 7_000_000


def test_h100_kernels():
    """Two steps of a layer: cuDNN's attention, cuBLAS's GEMMs; phases, launches and synchronisations."""
    read = read_recording(RECORDED / "h100-kernels.json.gz")
    timeline = read.timeline
    kinds = Counter((timeline.operations[o].kind, timeline.operations[o].phase) for o in timeline.operation)
    assert kinds["attention_forward", "forward"] == 2
    assert kinds["attention_backward", "backward"] == 6
    assert kinds["gemm", "forward"] == 4
    assert kinds["gemm", "backward"] == 6
    assert "attention_backward" not in {kind for kind, phase in kinds if phase == "forward"}
    assert [window.name for window in read.windows[0]] == ["2", "3"]
    assert {info.step for info in timeline.operations} == {2, 3}
    assert (read.launches.end_ns >= 0).all()
    assert (read.launches.start_ns <= timeline.start_ns).all()
    assert [sync.stream for sync in read.syncs[0]].count(timeline.lanes.index("stream 7")) == 2
    events = json.loads(gzip.decompress((RECORDED / "h100-kernels.json.gz").read_bytes()))["traceEvents"]
    kernels_us = sum(event["dur"] for event in events if event.get("cat") == "kernel")
    assert busy_ns(timeline, 0, "compute") == pytest.approx(1000 * kernels_us, abs=200)


def test_h100_streams_and_events():
    read = read_recording(RECORDED / "h100-nccl1.json.gz")
    assert set(read.timeline.lanes) == {"stream 7", "stream 16"}
    kinds = Counter(read.timeline.operations[o].kind for o in read.timeline.operation)
    assert kinds["all_to_all"] == 2
    assert kinds["exchange"] == 2, "SendRecv inside nccl:coalesced, or with no name at all, is an exchange"
    assert {read.timeline.lanes[wait.stream] for wait in read.waits[0]} == {"stream 7", "stream 16"}


@pytest.mark.parametrize("name", GLOO)
def test_gloo_pairs(name):
    read = read_recording(RECORDED / name)
    assert read.timeline.n_ranks == 2
    assert not read.on_device
    assert [len(windows) for windows in read.windows] == [2, 2]
    shared = Counter(read.timeline.operation.tolist())
    communication = [i for i, info in enumerate(read.timeline.operations) if info.category == "communication"]
    assert len(communication) == {"gloo-collectives": 2 * 7, "gloo-ring": 2 * 4, "gloo-executor": 2 * (4 * 4 + 3)}[name]
    assert all(shared[i] == 2 for i in communication)
    assert not read.warnings


def test_our_executor_over_nccl():
    """A ring of two, both passes: every operation is named and on both ranks, communication on a stream of its own."""
    read = read_recording(RECORDED / "h100-shared-ring")
    timeline = read.timeline
    assert read.on_device and timeline.n_ranks == 2 and [len(windows) for windows in read.windows] == [2, 2]
    kinds = Counter((timeline.operations[o].kind, timeline.operations[o].phase) for o in timeline.operation)
    assert kinds["exchange", "forward"] == 2 * 2 * 1 and kinds["exchange", "backward"] == 2 * 2 * 3
    lanes = {timeline.operations[o].category: set() for o in timeline.operation}
    for operation, lane in zip(timeline.operation.tolist(), timeline.lane.tolist(), strict=True):
        lanes[timeline.operations[operation].category].add(lane)
    assert lanes["communication"].isdisjoint(lanes["compute"])
    assert all(info.name.startswith("attnsim#") for info in timeline.operations)


def test_pytorchs_context_parallelism_over_nccl():
    """What both are SendRecv to the profiler is told apart: K and V by all-gather, dK and dV by all-to-all."""
    timeline = read_recording(RECORDED / "h100-shared-context-parallel").timeline
    found = Counter((timeline.operations[o].kind, timeline.operations[o].phase) for o in timeline.operation)
    moved = {each: count for each, count in found.items() if each[0] in ("all_gather", "all_to_all", "exchange")}
    assert moved == {("all_gather", "forward"): 4, ("all_gather", "backward"): 4, ("all_to_all", "backward"): 8}
    assert found["attention_forward", "forward"] == 2 * 2 * 2 and ("attention_forward", "backward") not in found


def test_gloo_kinds():
    read = read_recording(RECORDED / "gloo-collectives").timeline
    kinds = Counter(read.operations[o].kind for o in read.operation if read.operations[o].category == "communication")
    assert kinds == {"all_reduce": 8, "all_gather": 4, "all_to_all": 4, "broadcast": 4, "exchange": 8}


def test_a_cpu_alone():
    read = read_recording(RECORDED / "cpu-kernels.json.gz").timeline
    kinds = {(info.kind, info.phase) for info in read.operations}
    assert {
        ("gemm", "forward"),
        ("attention_forward", "forward"),
        ("attention_backward", "backward"),
        ("gemm", "backward"),
    } <= kinds


def test_files_may_be_named_and_need_no_rank(tmp_path):
    for rank in (0, 1):
        data = json.loads(gzip.decompress((RECORDED / f"gloo-ring/rank{rank}.json.gz").read_bytes()))
        del data["distributedInfo"]
        (tmp_path / f"worker_rank{rank}.json").write_text(json.dumps(data))
    paths = [tmp_path / "worker_rank1.json", tmp_path / "worker_rank0.json"]
    named, folder = read_recording(paths), read_recording(RECORDED / "gloo-ring")
    assert rows(named.timeline) == rows(folder.timeline)


def test_two_files_of_a_rank(tmp_path):
    for name in ("a.json.gz", "b.json.gz"):
        shutil.copy(RECORDED / "gloo-ring" / "rank0.json.gz", tmp_path / name)
    with pytest.raises(InputError, match="two traces are of rank 0"):
        read_recording(tmp_path)


def test_some_ranks_missing_is_said():
    assert "1 of 2 ranks" in read_recording(RECORDED / "gloo-ring" / "rank0.json.gz").warnings[0]


def test_cpu_and_gpu_mixed():
    with pytest.raises(InputError, match="some traces hold GPU kernels"):
        read_recording([RECORDED / SINGLE[0], RECORDED / "gloo-ring/rank1.json.gz"])


KERNEL = '{"ph": "X", "cat": "kernel", "name": "k", "tid": 7, '
FOREIGN = [
    ("", "holds no kernels and no operators: got no events"),
    ('{"ph": "X", "cat": "blink", "name": "paint", "ts": 1, "dur": 1}', "got 1 events of category blink"),
    (KERNEL + '"ts": 1, "dur": -1}', "event 'k' is malformed"),
    (KERNEL + '"dur": 1}', "event 'k' is malformed"),
    (KERNEL + '"ts": 1, "dur": "long"}', "a time is not a number"),
    (KERNEL + '"ts": 1, "args": {"stream": "x"}}', "event 'k' is malformed"),
]


@pytest.mark.parametrize(("events", "message"), FOREIGN)
def test_foreign_traces(tmp_path, events, message):
    (tmp_path / "t.json").write_text(f'{{"traceEvents": [{events}]}}')
    with pytest.raises(InputError, match=message):
        read_recording(tmp_path / "t.json")


def test_a_folder_without_traces(tmp_path):
    with pytest.raises(InputError, match="holds no traces"):
        read_recording(tmp_path)


def test_overlap_in_a_stream_is_cut_and_said(tmp_path):
    event = '{"ph": "X", "cat": "kernel", "name": "k", "pid": 0, "tid": 7, "ts": %s, "dur": 10, "args": {"stream": 7}}'
    (tmp_path / "t.json").write_text(f'{{"traceEvents": [{event % 0}, {event % 8}]}}')
    read = read_recording(tmp_path)
    assert sorted(read.timeline.end_ns.tolist()) == [8000, 18000]
    assert "cut by 2000 ns" in read.warnings[0]


STRANGE = [-1, 1e300, None, "x", [], {}, 10**30, float("nan"), True, 0, 2**62, -(2**63), 10**15, "..."]


@pytest.mark.parametrize("seed", range(6))
def test_strange_values_anywhere_are_refused_or_harmless(tmp_path, seed):
    """Whatever stands in a field: one message, or a timeline that keeps to its rules and can be summarised."""
    rng = random.Random(seed)
    name = rng.choice(["h100-nccl1.json.gz", "gloo-ring/rank0.json.gz", "gloo-executor/rank1.json.gz"])
    whole = gzip.decompress((RECORDED / name).read_bytes())
    refused = 0
    for _ in range(12):
        trace = json.loads(whole)
        events = trace["traceEvents"]
        if rng.random() < 0.1:
            trace[rng.choice(["baseTimeNanoseconds", "distributedInfo", "traceEvents"])] = rng.choice(STRANGE)
        for _ in range(rng.randint(1, 20)):
            event = rng.choice(events)
            arguments = event.get("args")
            fields = arguments if isinstance(arguments, dict) and arguments and rng.random() < 0.5 else event
            fields[rng.choice(list(fields))] = rng.choice(STRANGE)
        (tmp_path / "t.json").write_text(json.dumps(trace))
        try:
            summarise(read_recording(tmp_path / "t.json"))
        except InputError:
            refused += 1
    assert refused

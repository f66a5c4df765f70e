"""Our traces as Perfetto itself reads them: its slices, flows and counters are our rows, calls and memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.simulator.costs import RoundCosts, Traced, run_traced
from tests.simulator.workloads import small_program, small_setup
from tests.traces.perfetto_engine import ask, why_missing
from traces.perfetto import write_traces

pytestmark = pytest.mark.skipif(why_missing() is not None, reason=why_missing() or "")

RANK = 1
QUERIES = {
    "slices": """select slice.id, slice.name, category, ts, dur, thread.name as lane from slice
        join thread_track on track_id = thread_track.id join thread using (utid)""",
    "flows": """select a.name as call, a.ts + a.dur as called, b.name as kernel, b.ts as started from flow
        join slice a on slice_out = a.id join slice b on slice_in = b.id""",
    "counters": """select value, ts from counter join counter_track on track_id = counter_track.id
        where name = 'memory bytes' order by ts""",
    "problems": "select name, value from stats where value > 0 and severity != 'info'",
    "arguments": """select name, extract_arg(arg_set_id, 'args.Collective name') as collective,
        extract_arg(arg_set_id, 'args.bytes') as bytes from slice where name like 'nccl%'""",
}


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> tuple[Traced, dict[str, list[dict[str, Any]]]]:
    folder = tmp_path_factory.mktemp("perfetto")
    traced = run_traced(small_program("burst:ring=double", small_setup(4, ranks_per_node=2)), RoundCosts(4))
    write_traces(traced.timeline, folder / "t", traced.details)
    answers = ask(folder / "t" / f"rank{RANK}.json", list(QUERIES.values()), folder)
    return traced, dict(zip(QUERIES, answers, strict=True))


def test_slices_are_our_rows_to_the_nanosecond(read):
    traced, found = read
    timeline = traced.timeline
    mine = timeline.rank == RANK
    columns = (timeline.lane[mine], timeline.start_ns[mine], timeline.end_ns[mine])
    ours = Counter(
        (timeline.lanes[lane], int(start), int(end - start)) for lane, start, end in zip(*columns, strict=True)
    )
    kernels = [row for row in found["slices"] if row["category"] in ("kernel", "gpu_memcpy")]
    assert Counter((row["lane"], row["ts"], row["dur"]) for row in kernels) == ours
    assert found["problems"] == []


def test_a_flow_leads_from_every_call_to_its_kernel(read):
    traced, found = read
    assert len(found["flows"]) == int((traced.timeline.rank == RANK).sum())
    assert all("Launch" in row["call"] and row["called"] <= row["started"] for row in found["flows"])
    assert Counter(row["kernel"].split()[0] for row in found["flows"])["attention_forward"] == 4


def test_memory_is_a_counter(read):
    traced, found = read
    values = [row["value"] for row in found["counters"]]
    assert max(values) == traced.details.memory.bytes[traced.details.memory.rank == RANK].max() > 0


def test_communication_has_nccls_arguments(read):
    _, found = read
    assert found["arguments"]
    assert {row["collective"] for row in found["arguments"]} == {"coalesced"}
    assert all(row["bytes"] > 0 for row in found["arguments"])

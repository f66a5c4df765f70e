"""Traces of our executor on a GPU, compared with the simulation of the same Program."""

from __future__ import annotations

import pytest

import attnsim
from tests.traces.kineto.places import RECORDED
from traces.differences import Comparison, compare_timelines, select_step
from traces.kineto import read_recording
from traces.timeline import Timeline

SHAPE = {"heads": 16, "kv_heads": 16, "head_dim": 128, "seq_len": 8192, "topology": "dgx-h100", "hardware": "h100-sxm"}


def compare(name: str, schedule: str, gpus: int) -> Comparison:
    """Simulated against the fastest step measured."""
    simulated = attnsim.simulate(schedule=schedule, gpus=gpus, timeline=True, **SHAPE).timeline
    assert simulated is not None
    return compare_timelines(simulated, select_step(read_recording(RECORDED / name)))


def test_one_gpu_takes_the_time_that_is_simulated():
    assert abs(compare("h100-executor.json.gz", "flash", 1).error) < 0.05


def test_two_gpus_take_the_time_that_is_simulated():
    """Over NVLink; the profiler's own time on the host is in what was recorded."""
    shape = SHAPE | {"seq_len": 16384, "kernel": "flash2"}
    simulated = attnsim.simulate(schedule="ring", gpus=2, timeline=True, **shape).timeline
    assert simulated is not None
    found = compare_timelines(simulated, select_step(read_recording(RECORDED / "h100-pair-ring")))
    assert abs(found.error) < 0.05
    assert all(simulated == measured for kind, (simulated, measured) in found.kinds.items() if "copy/" not in kind)


@pytest.mark.parametrize(
    "name", ["torch-cp:rotate=alltoall,balance=true", "ring-flash-attn:variant=zigzag,stand-in=true"]
)
def test_a_peer_moves_memory_in_kernels_as_long_as_simulated(name: str):
    """All that is neither attention nor communication: casts, sums, merges and copies, by whatever kernels."""
    shape = SHAPE | {"seq_len": 16384, "kernel": "flash2"}
    simulated = attnsim.simulate(schedule=name, gpus=2, timeline=True, **shape).timeline
    measured = select_step(read_recording(RECORDED / f"h100-pair-{name.partition(':')[0]}"))
    assert simulated is not None
    found = [memory_bound_ns(each) for each in (simulated, measured)]
    assert found[0] == pytest.approx(found[1], rel=0.1)


def memory_bound_ns(timeline: Timeline) -> int:
    """Of rank 0."""
    moves = [
        each.category in ("compute", "copy")
        and not any(word in each.kind + each.name for word in ("attention", "flash"))
        for each in timeline.operations
    ]
    spans = zip(timeline.operation, timeline.rank, timeline.start_ns, timeline.end_ns, strict=True)
    return sum(int(end - start) for operation, rank, start, end in spans if rank == 0 and moves[operation])


def durations_ns(timeline: Timeline, kind: str, phase: str) -> list[int]:
    """Of each operation of a kind, on all ranks."""
    own = {each.id for each in timeline.operations if (each.kind, each.phase) == (kind, phase)}
    spans = zip(timeline.operation, timeline.start_ns, timeline.end_ns, strict=True)
    return [int(end - start) for operation, start, end in spans if operation in own]


def test_equal_kernels_of_ranks_that_share_a_gpu_surround_the_time_that_is_simulated():
    """Twelve casts of the same size take 17 to 29 us there, by what the other rank does beside them."""
    simulated = attnsim.simulate(schedule="ring", gpus=2, timeline=True, **SHAPE).timeline
    measured = select_step(read_recording(RECORDED / "h100-shared-ring"))
    (once,) = set(durations_ns(simulated, "cast", "backward"))
    seen = durations_ns(measured, "cast", "backward")
    assert len(seen) == 12
    assert min(seen) < once < sorted(seen)[len(seen) // 2]


def test_kernels_of_ranks_that_share_a_gpu_take_the_time_that_is_simulated():
    """All operations are found, and those that compute agree; communication does not, as the ranks take turns."""
    found = compare("h100-shared-ring", "ring", 2)
    assert all(simulated == measured for kind, (simulated, measured) in found.kinds.items() if "copy/" not in kind)
    parts = {each.name: each for each in found.parts}
    for kind in ("attention_forward/forward", "attention_backward/backward"):
        part = parts[f"compute/{kind}"]
        assert part.simulated_ns == pytest.approx(part.measured_ns, rel=0.15)
    assert parts["communication/exchange/backward"].cost_ns > 0.5 * found.makespan.cost_ns

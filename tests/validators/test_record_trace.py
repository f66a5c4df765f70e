"""Recording: what the commands of docs/traces.md write is what the reader reads."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from tests.validators.recorded_process import record_context_parallel, record_ring  # noqa: E402
from traces.errors import InputError  # noqa: E402
from traces.kineto import read_recording  # noqa: E402
from validators.executors.processes import run_ranks  # noqa: E402
from validators.executors.world import own_gpu  # noqa: E402
from validators.record_trace import record  # noqa: E402
from validators.trace_workloads import WORKLOADS, Case  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
CPU = Case(torch.device("cpu"), 0, 1, 64, 2, 16)


def test_kernels_on_a_cpu(tmp_path):
    path = record(tmp_path / "t", CPU, "kernels", 2)
    assert path.name == "rank0.json.gz"
    assert [each.name for each in (tmp_path / "t").iterdir()] == ["rank0.json.gz"]
    read = read_recording(tmp_path / "t")
    assert len(read.windows[0]) == 2
    found = {(info.kind, info.phase) for info in read.timeline.operations}
    assert {("gemm", "forward"), ("attention_forward", "forward"), ("attention_backward", "backward")} <= found


@pytest.mark.parametrize("workload", sorted(set(WORKLOADS) - {"kernels"}))
def test_communication_needs_several_processes(tmp_path, workload):
    with pytest.raises(InputError, match=f"workload {workload} needs several processes"):
        record(tmp_path / "t", CPU, workload, 1)
    assert not (tmp_path / "t").exists()


def test_our_executor_on_two_processes(tmp_path):
    names = run_ranks(2, record_ring, tmp_path / "t")
    assert names == ["rank0.json.gz", "rank1.json.gz"]
    read = read_recording(tmp_path / "t")
    ours = [info for info in read.timeline.operations if info.name.startswith("attnsim#")]
    assert {info.kind for info in ours} >= {"exchange", "attention_forward", "merge"}
    assert {info.step for info in ours if info.kind == "attention_forward"} == {0, 1}
    assert read.timeline.n_ranks == 2


def test_pytorchs_context_parallelism_on_two_processes(tmp_path):
    """An all-gather of K and V forward; backward one more, and hops of dK and dV that are all-to-alls."""
    assert run_ranks(2, record_context_parallel, tmp_path / "t") == ["rank0.json.gz", "rank1.json.gz"]
    read = read_recording(tmp_path / "t")
    assert [len(read.windows[rank]) for rank in (0, 1)] == [2, 2]
    kinds = [info.kind for info in read.timeline.operations]
    assert kinds.count("all_gather") >= 2 * 2 and kinds.count("all_to_all") >= 2
    assert {"attention_forward", "attention_backward"} <= set(kinds)


def test_ranks_share_a_gpu_only_where_nccl_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_gpu() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(InputError, match="rank 3 of this host has no GPU"):
        own_gpu()
    assert own_gpu("gloo") == torch.device("cuda", 1)
    monkeypatch.setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1")
    assert own_gpu() == torch.device("cuda", 1)

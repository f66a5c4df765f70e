"""The network's microbenchmarks between real processes, over gloo: every operation, records, resuming."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import attnsim
from traces.records import read_records
from validators.bench.network import COLLECTIVES, network_plan


def run(ranks: int, records: Path) -> str:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m",
               "validators.bench.network", "--records", str(records), "--minutes", "1", "--largest", "17",
               "--link", "test"]  # fmt: skip
    done = subprocess.run(
        command, cwd=Path(attnsim.__file__).parent, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_plan() -> None:
    plan = network_plan(4, "nvlink")
    assert len({case.key for case in plan}) == len(plan)
    single = [case for case in plan if case.kind == "network" and case.parameters["hops"] == 1]
    assert {case.parameters["bytes"] for case in single} == {2**power for power in range(10, 31)}
    assert {case.parameters["operation"] for case in single} == {"exchange", "one-way", *COLLECTIVES}
    assert {case.parameters["hops"] for case in plan if case.kind == "network"} == {1, 2, 8}
    assert {case.parameters["measured"] for case in plan if case.kind == "interference"} == {"kernel", "exchange"}


def test_every_operation_between_two_processes_and_a_second_run_has_nothing_to_do(tmp_path: Path) -> None:
    path = tmp_path / "network.jsonl"
    assert "cases measured" in run(2, path)
    records = read_records(path).records
    by_operation = {
        name: [r for r in records if r.parameters.get("operation") == name] for name in ("exchange", *COLLECTIVES)
    }
    for name, mine in by_operation.items():
        assert mine and all(record.outcome == "measured" and len(record.samples_s) >= 3 for record in mine), name
    assert {(r.parameters["bytes"], r.parameters["hops"]) for r in by_operation["exchange"]} >= {(2**16, 1), (2**16, 8)}
    interference = [record for record in records if record.kind == "interference"]
    assert all(record.outcome == "refused" for record in interference)
    assert run(2, path).splitlines()[-1] == "0 cases measured, 0 left"
    assert len(read_records(path).records) == len(records)

"""Command ``calibrate``: from records to calibrated terms, report and JSON; what cannot be done is one message."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

import attnsim
from traces.records import CalibrationRecord, open_records, read_records
from validators.validation.forecast import GpuPredictor
from validators.validation.runs import Configuration

RECORDS = Path(attnsim.__file__).parent / "validators" / "records" / "h200-sxm" / "kernels.jsonl"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Records of everything but attention, and of few attention calls."""
    whole, part = read_records(RECORDS), open_records(tmp_path / "records" / "part.jsonl")
    for machine in whole.machines.values():
        part.add_machine(machine)
    triton = 0
    for record in whole.records:
        triton += record.parameters.get("kernel") == "triton"
        if record.kind in ("gemm", "elementwise", "host") or record.parameters.get("kernel") == "triton":
            part.add(record)
    assert triton >= 8
    return tmp_path / "records"


def calibrate(*arguments: str) -> object:
    with pytest.raises(SystemExit) as ended:
        attnsim.main(["calibrate", "--hardware", "h200-sxm", *arguments])
    return ended.value.code


def test_writes_terms_report_and_json(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    terms, report = tmp_path / "terms.toml", tmp_path / "report.md"
    assert not calibrate("--records", str(folder), "--output", str(terms), "--report", str(report), "--json", "-")
    summary = json.loads(capsys.readouterr().out)
    assert {each["kernel"] for each in summary["passes"]} == {"triton"}
    assert summary["gemm"]["efficiency"]["half_width_90"] > 0
    table = tomllib.loads(terms.read_text())
    assert table["kernels"]["triton"]["forward"]["in_order"] is True
    assert table["gemm"]["efficiency"] == pytest.approx(summary["gemm"]["efficiency"]["value"], rel=1e-3)
    assert {source["basis"] for source in table["source"]} == {"calibrated"}
    text = report.read_text()
    for part in ("## What was measured", "NVIDIA H200", "## Fitted parameters", "| merge |", "## Host"):
        assert part in text


def test_links_become_a_profile_that_predictions_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = open_records(tmp_path / "network-shm.jsonl")
    machine = file.add_machine({"gpu": "none"})
    for power in range(10, 30):
        parameters = {"ranks": 2, "link": "shm", "operation": "exchange", "bytes": 2**power, "hops": 1}
        file.add(CalibrationRecord("network", parameters, "measured", (2e-5 + 2**power / 2e10,), machine))
    profile = tmp_path / "h200-nvlink-pair.toml"
    assert not calibrate("--network", str(tmp_path), "--output", str(profile))
    assert "| exchange | 20 |" in capsys.readouterr().out
    assert tomllib.loads(profile.read_text())["links"]["shm"]["efficiency"] == pytest.approx(20 / 30, rel=0.02)
    configuration = Configuration(4096, 8, 8, 64, 1, "causal", "bf16", "flash2", 2, 2)
    machine = {"environment": {"NCCL_P2P_DISABLE": "1"}}
    resolved = GpuPredictor(str(profile), None).request(configuration, "ring", machine=machine).resolve()
    assert resolved.topology.name == "h200-shm-pair"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--records", "nowhere"], "cannot be read"),
        (["--network", "nowhere"], "no network-*.jsonl"),
        (["--measure", "--records", "nowhere", "--no-fit"], "no CUDA device"),
    ],
)
def test_refusals(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate(*arguments) == 2
    assert message in capsys.readouterr().err

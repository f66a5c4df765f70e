"""The command on committed measurements: exit codes, JSON and report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import attnsim
from validators.validation.runs import FILE

GLOO = Path(__file__).parents[3] / "docs" / "validation" / "h100-gloo"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs with their timelines, and the host's profile."""
    lines = (GLOO / "runs" / FILE).read_text().splitlines(keepends=True)[:2]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / FILE).write_text("".join(lines))
    for line in lines:
        shutil.copy(GLOO / "runs" / json.loads(line)["timeline"], tmp_path / "runs")
    shutil.copy(GLOO / "profile.json", tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        attnsim.main(["validate", *arguments])
    return int(ended.value.code or 0)


def test_within_and_past_the_tolerance(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(folder), "--backend", "gloo", "--tolerance", "10", "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["summary"]["runs"] == len(found["runs"]) == 2
    assert found["runs"][0]["kinds"]
    assert run(str(folder), "--backend", "gloo", "--tolerance", "1e-9") == 1


def test_a_wrong_result_fails_whatever_the_times(folder: Path) -> None:
    file = folder / "runs" / FILE
    wrong = json.loads(file.read_text().splitlines()[0]) | {"outcome": "wrong", "samples_s": [], "timeline": None}
    wrong["schedule"] = "burst"
    with file.open("a") as lines:
        lines.write(json.dumps(wrong) + "\n")
    assert run(str(folder), "--backend", "gloo", "--tolerance", "10") == 1


def test_the_report_shows_both_timelines(folder: Path) -> None:
    html = folder / "report.html"
    assert run(str(folder), "--backend", "gloo", "--tolerance", "10", "--html", str(html)) == 0
    text = html.read_text()
    assert "The run that is most off" in text and "Worst runs" in text
    assert all(f'aria-label="{name}"' in text for name in ("Predicted", "Measured"))


def test_bad_input_is_one_message(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(folder / "runs")) == 2
    assert "profile" in capsys.readouterr().err
    assert run(str(folder), "--backend", "mpi") == 2

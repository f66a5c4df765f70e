"""Calibration records: what is written is read, files grow, interrupted runs resume, bad lines are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from traces.errors import InputError
from traces.records import CalibrationRecord, RecordFile, latest, open_records, read_folder, read_records

PROVENANCE = {"gpu": "NVIDIA H100 80GB HBM3", "driver": "580.159.04"}


def record(machine: str, m: int = 4, **changes: object) -> CalibrationRecord:
    fields = {"kind": "gemm", "parameters": {"m": m, "dtype": "bf16"}, "outcome": "measured",
              "samples_s": (3e-6, 1e-6, 2e-6)}  # fmt: skip
    return CalibrationRecord(**(fields | {"machine": machine} | changes))  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> RecordFile:
    found = open_records(tmp_path / "folder" / "records.jsonl")
    found.add(record(found.add_machine(PROVENANCE), conditions={"power_w": 312.5}, check={"o": 1e-3}))
    return found


def test_what_is_written_is_read(file: RecordFile) -> None:
    file.add(record(file.add_machine(PROVENANCE), 8, outcome="out_of_memory", samples_s=(), detail="tried 90 GiB"))
    again = read_records(file.path)
    assert again.records == file.records
    assert again.machines == file.machines and len(again.machines) == 1


def test_median_and_spread_of_samples(file: RecordFile) -> None:
    (only,) = file.records
    assert only.median_s == 2e-6
    assert only.spread == pytest.approx(0.5)
    assert only.key == 'gemm {"dtype":"bf16","m":4}'


def test_an_interrupted_run_resumes(file: RecordFile) -> None:
    whole = file.path.read_bytes()
    with file.path.open("ab") as opened:
        opened.write(b'{"kind": "gemm", "par')
    assert read_records(file.path).records == file.records
    resumed = open_records(file.path)
    assert file.path.read_bytes() == whole
    resumed.add(record(resumed.add_machine(PROVENANCE), 16))
    assert [each.parameters["m"] for each in read_records(file.path).records] == [4, 16]


def test_the_latest_of_a_key_counts(file: RecordFile, tmp_path: Path) -> None:
    later = open_records(file.path.with_name("z.jsonl"))
    later.add(record(later.add_machine(PROVENANCE), samples_s=(9e-6,)))
    (only,) = latest(read_folder(file.path.parent))
    assert only.median_s == 9e-6


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "dance"},
        {"outcome": "perhaps"},
        {"samples_s": []},
        {"samples_s": [-1.0]},
        {"samples_s": [float("nan")]},
        {"samples_s": ["fast"]},
        {"outcome": "wrong"},
        {"parameters": {"m": [1]}},
        {"parameters": 3},
        {"machine": "unknown"},
        {"conditions": {"power_w": "high"}},
    ],
)
def test_bad_records_are_refused(file: RecordFile, change: dict[str, object]) -> None:
    first, second = file.path.read_text().splitlines()
    file.path.write_text(f"{first}\n{json.dumps(json.loads(second) | change)}\n")
    with pytest.raises(InputError):
        read_records(file.path)


@pytest.mark.parametrize("line", ["[1]", "{", "1" * 5000, '{"machine": 3, "provenance": {}}', "{}"])
def test_bad_lines_are_refused(file: RecordFile, line: str) -> None:
    with file.path.open("a") as opened:
        opened.write(line + "\n")
    with pytest.raises(InputError, match="line 3"):
        read_records(file.path)


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_records(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="has no records"):
        read_folder(tmp_path)

"""Measurements that cost models are fitted to: JSON lines, appended to and never rewritten.

    {"machine": ID, "provenance": {...}}                          once per machine and session, before its records
    {"kind": ..., "parameters": {...}, "outcome": ..., "samples_s": [...], "machine": ID, "conditions": {...},
     "check": {...}, "detail": ...}

A record holds every sample, never only their mean. What did not give a time is a record too, with its outcome: out of
memory, refused, or a result that failed its check, whose times are not kept. Reading trusts nothing: files are bounded,
and every line is checked; a last line that an interrupted run left unfinished is skipped.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from traces.bounded import read_bounded
from traces.errors import InputError

MAX_FILE_BYTES = 64 << 20
MAX_LINE_BYTES = 1 << 20

KINDS = ("attention", "sustained", "train", "gemm", "elementwise", "host", "host_copy", "network", "interference")
OUTCOMES = ("measured", "out_of_memory", "wrong", "refused")

Value = int | float | str | bool | None


@dataclass(frozen=True)
class CalibrationRecord:
    """One operation, measured on one machine.

    Attributes
    ----------
    kind : one of ``KINDS``.
    parameters : what was run: shapes, dtypes, kernel; with the kind they are the record's key.
    outcome : one of ``OUTCOMES``.
    samples_s : seconds of each run, in the order of the runs; none unless measured.
    machine : key of ``provenance`` in its file.
    conditions : clocks (MHz), power (W) and temperature (C) seen meanwhile.
    check : relative errors against a reference in higher precision.
    detail : of an outcome that gave no time.
    """

    kind: str
    parameters: Mapping[str, Value]
    outcome: str
    samples_s: tuple[float, ...]
    machine: str
    conditions: Mapping[str, float] = field(default_factory=dict)
    check: Mapping[str, float] = field(default_factory=dict)
    detail: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.outcome not in OUTCOMES:
            raise InputError("unknown kind or outcome of a record", got=f"{self.kind}, {self.outcome}")
        if (self.outcome == "measured") != bool(self.samples_s):
            raise InputError(f"a record has samples if it was measured, and only then: {self.key}")
        if not all(isinstance(each, float) and 0 < each < 1e6 for each in self.samples_s):
            raise InputError(f"samples are no times in seconds: {self.key}", got=str(self.samples_s)[:100])

    @property
    def key(self) -> str:
        """Canonical text of kind and parameters: two records with one key measured the same thing."""
        return record_key(self.kind, self.parameters)

    @property
    def median_s(self) -> float:
        """Median of the samples, in seconds."""
        ordered = sorted(self.samples_s)
        middle = len(ordered) // 2
        return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles of the samples, relative to their median."""
        ordered = sorted(self.samples_s)
        last = len(ordered) - 1
        return (ordered[math.ceil(0.75 * last)] - ordered[math.floor(0.25 * last)]) / 2 / self.median_s


def record_key(kind: str, parameters: Mapping[str, Value]) -> str:
    """Canonical text of what a record measures.

    >>> record_key("gemm", {"n": 8, "m": 4})
    'gemm {"m":4,"n":8}'
    """
    return f"{kind} {json.dumps(dict(parameters), sort_keys=True, separators=(',', ':'))}"


@dataclass
class RecordFile:
    """Records of one file, and the machines they were taken on.

    Attributes
    ----------
    records : in the order of the file.
    machines : provenance by key.
    """

    path: Path
    records: list[CalibrationRecord] = field(default_factory=list)
    machines: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def add_machine(self, provenance: Mapping[str, Any]) -> str:
        """Note a machine unless it is known; its key."""
        text = json.dumps(dict(provenance), sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:12]
        if key not in self.machines:
            self._append({"machine": key, "provenance": dict(provenance)})
            self.machines[key] = provenance
        return key

    def add(self, record: CalibrationRecord) -> None:
        """Append a record, on the disk before this returns."""
        line: dict[str, Any] = {
            "kind": record.kind,
            "parameters": dict(record.parameters),
            "outcome": record.outcome,
            "samples_s": [float(f"{each:.6g}") for each in record.samples_s],
            "machine": record.machine,
        }
        optional = {"conditions": dict(record.conditions), "check": dict(record.check), "detail": record.detail}
        self._append(line | {name: value for name, value in optional.items() if value})
        self.records.append(record)

    def _append(self, line: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


def open_records(path: str | os.PathLike[str]) -> RecordFile:
    """Records of a file that may not exist yet, to be appended to; a half-written last line is cut off."""
    target = Path(path)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        return RecordFile(target)
    data = target.read_bytes()
    if data and not data.endswith(b"\n"):
        target.write_bytes(data[: data.rfind(b"\n") + 1])
    return read_records(target)


def read_records(path: str | os.PathLike[str]) -> RecordFile:
    """Records of a file.

    Raises
    ------
    InputError
        Where the file cannot be read, is too large, or has a line that is no record.
    """
    target = Path(path)
    found = RecordFile(target)
    for number, line in _lines(target):
        where = f"{target}, line {number}"
        if "provenance" in line:
            if not isinstance(line["provenance"], dict) or not isinstance(line.get("machine"), str):
                raise InputError(f"{where} is no provenance of a machine")
            found.machines[line["machine"]] = line["provenance"]
        else:
            found.records.append(_parse(line, found.machines, where))
    return found


def read_folder(path: str | os.PathLike[str]) -> list[RecordFile]:
    """All record files (``*.jsonl``) of a folder, in order of their names; or the one file."""
    target = Path(path)
    files = sorted(target.glob("*.jsonl")) if target.is_dir() else [target]
    if not files:
        raise InputError(f"folder {target} has no records", expected="*.jsonl")
    return [read_records(file) for file in files]


def latest(files: Iterable[RecordFile]) -> list[CalibrationRecord]:
    """One record per key: the last one, so that what was measured again replaces what it was measured for."""
    found: dict[str, CalibrationRecord] = {}
    for file in files:
        for record in file.records:
            found[record.key] = record
    return list(found.values())


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = read_bounded(path, f"records {path}", MAX_FILE_BYTES).split(b"\n")
    for number, text in enumerate(lines[:-1], 1):
        try:
            line = json.loads(text) if len(text) <= MAX_LINE_BYTES else None
        except (ValueError, RecursionError):
            line = None
        if not isinstance(line, dict):
            raise InputError(f"{path}, line {number} is no record", got=repr(text[:60].decode(errors="replace")))
        yield number, line


def _parse(line: dict[str, Any], machines: Mapping[str, Any], where: str) -> CalibrationRecord:
    try:
        record = CalibrationRecord(
            kind=str(line["kind"]),
            parameters=_flat(line["parameters"]),
            outcome=str(line["outcome"]),
            samples_s=tuple(float(each) for each in line["samples_s"]),
            machine=str(line["machine"]),
            conditions={name: float(value) for name, value in line.get("conditions", {}).items()},
            check={name: float(value) for name, value in line.get("check", {}).items()},
            detail=line.get("detail"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{where} is no record", got=str(error)) from None
    if record.machine not in machines:
        raise InputError(f"{where}: the record's machine is not described before it", got=record.machine)
    return record


def _flat(parameters: Any) -> dict[str, Value]:
    if not isinstance(parameters, dict) or not all(isinstance(each, Value) for each in parameters.values()):
        raise ValueError("parameters are not numbers and texts by name")
    return parameters

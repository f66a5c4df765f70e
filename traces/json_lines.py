"""Timelines as JSON lines: text that any language reads, now and in ten years.

    line 1        {"format": "attnsim timeline", "version": 1, "n_ranks", "lanes", "operations", "rows", "provenance"}
    next lines    one per operation: {"id", "name", "kind", "phase", "step", "category"}
    then          one per row: {"start_ns", "end_ns", "rank", "lane", "operation", "bytes"}, integers

Reading is strict: exactly these fields, in any order, exactly as many lines as the first one says.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from traces.atomic import write_stream_atomic
from traces.errors import InputError
from traces.garbage import collector_paused
from traces.invariants import COLUMNS
from traces.storage import FORMAT, MAX_ROWS, VERSION
from traces.timeline import OperationInfo, Timeline

MAX_LINE_CHARACTERS = 16 << 20
HEADER = {
    "format": str,
    "version": int,
    "n_ranks": int,
    "lanes": list,
    "operations": int,
    "rows": int,
    "provenance": dict,
}
OPERATION = {"id": int, "name": str, "kind": str, "phase": str, "step": int, "category": str}
CHUNK_ROWS = 1 << 16


def save_json_lines(timeline: Timeline, path: str | os.PathLike[str]) -> None:
    """Write a timeline, whole or not at all; gzip where the name ends in ``.gz``.

    Raises
    ------
    InputError
        Where the path cannot be written.
    """
    write_stream_atomic(path, lambda file: file.writelines(_lines(timeline)))


@collector_paused()
def load_json_lines(path: str | os.PathLike[str]) -> Timeline:
    """Read what :func:`save_json_lines` wrote.

    Raises
    ------
    InputError
        Naming the line that is wrong, or where the file cannot be read.
    """
    try:
        with _open(Path(path)) as file:
            return _Reader(file).timeline()
    except InputError as error:
        raise InputError(f"cannot read timeline {os.fspath(path)}: {error.message}") from error
    except FileNotFoundError as error:
        raise InputError(f"timeline {os.fspath(path)} does not exist") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"cannot read timeline {os.fspath(path)}", got=error, expected="JSON lines, whole") from error


def _lines(timeline: Timeline) -> Iterator[str]:
    header = {
        "format": FORMAT,
        "version": VERSION,
        "n_ranks": timeline.n_ranks,
        "lanes": timeline.lanes,
        "operations": len(timeline.operations),
        "rows": len(timeline),
        "provenance": dict(timeline.provenance),
    }
    yield json.dumps(header) + "\n"
    for info in timeline.operations:
        yield json.dumps(asdict(info)) + "\n"
    for first in range(0, len(timeline), CHUNK_ROWS):
        chunk = (getattr(timeline, name)[first : first + CHUNK_ROWS].tolist() for name in COLUMNS)
        for start_ns, end_ns, rank, lane, operation, n_bytes in zip(*chunk, strict=True):
            yield (
                f'{{"start_ns": {start_ns}, "end_ns": {end_ns}, "rank": {rank}, "lane": {lane}, '
                f'"operation": {operation}, "bytes": {n_bytes}}}\n'
            )


def _open(path: Path) -> IO[str]:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


class _Reader:
    """Takes line after line."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._number = file, 0

    def timeline(self) -> Timeline:
        """All of it."""
        header = self._record(HEADER)
        if (header["format"], header["version"]) != (FORMAT, VERSION):
            raise InputError("version", got=f"{header['format']} {header['version']}", expected=f"{FORMAT} {VERSION}")
        for name in ("rows", "operations"):
            if not 0 <= header[name] <= MAX_ROWS:
                raise InputError(f"number of {name}", got=header[name], expected=f"0 to {MAX_ROWS}")
        if not all(type(lane) is str for lane in header["lanes"]):
            raise InputError("lanes", got=header["lanes"], expected="texts")
        operations = tuple(OperationInfo(**self._record(OPERATION)) for _ in range(header["operations"]))
        columns = self._rows(header["rows"])
        if self._file.readline(2):
            raise InputError(f"line {self._number + 1} is one too many", expected=f"{header['rows']} rows")
        return Timeline(
            operations, tuple(header["lanes"]), header["n_ranks"], provenance=header["provenance"], **columns
        )

    def _rows(self, count: int) -> dict[str, Any]:
        columns = {name: array("q") for name in COLUMNS}
        expected = dict.fromkeys(COLUMNS, int)
        for _ in range(count):
            record = self._record(expected)
            try:
                for name, column in columns.items():
                    column.append(record[name])
            except OverflowError as error:
                raise InputError(f"line {self._number} holds a number over 64 bits") from error
        return {name: np.frombuffer(column, dtype=np.int64) for name, column in columns.items()}

    def _record(self, fields: Mapping[str, type]) -> dict[str, Any]:
        line = self._file.readline(MAX_LINE_CHARACTERS)
        self._number += 1
        if not line.endswith("\n"):
            raise InputError(f"line {self._number} is missing, cut off or too long", got=repr(line[:60]))
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"line {self._number} is not JSON", got=error) from error
        if type(record) is not dict or record.keys() != fields.keys():
            got = ", ".join(record) if type(record) is dict else repr(record)
            raise InputError(f"line {self._number} has other fields", got=got[:120], expected=", ".join(fields))
        for name, kind in fields.items():
            if type(record[name]) is not kind:
                got = repr(record[name])[:60]
                raise InputError(f"line {self._number}: {name} has the wrong type", got=got, expected=kind.__name__)
        return record

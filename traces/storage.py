"""Timelines in a file: a zip archive of NumPy columns and one JSON header.

    header.json   {"format", "version", "n_ranks", "rows", "lanes", "operations", "provenance"}
    NAME.npy      one column of ``rows`` numbers for each of the timeline's columns

Reading trusts nothing: no pickles, a column must have the very size and preamble that the header implies before its
numbers are read, and the :class:`Timeline` checks the rows themselves. The same timeline always gives the same bytes.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from dataclasses import astuple
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from traces.atomic import write_bytes_atomic
from traces.errors import InputError
from traces.invariants import COLUMNS
from traces.timeline import OperationInfo, Timeline

FORMAT, VERSION = "attnsim timeline", 1
MAX_HEADER_BYTES = 256 << 20
MAX_ROWS = 50_000_000
T = TypeVar("T")

_UNREADABLE = (
    OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, TypeError, NotImplementedError,
    RuntimeError, MemoryError,
)  # fmt: skip


def save_timeline(timeline: Timeline, path: str | os.PathLike[str]) -> None:
    """Write a timeline to a file, whole or not at all.

    Raises
    ------
    InputError
        Where the path cannot be written.
    """
    header = {
        "format": FORMAT,
        "version": VERSION,
        "n_ranks": timeline.n_ranks,
        "rows": len(timeline),
        "lanes": timeline.lanes,
        "operations": [astuple(info) for info in timeline.operations],
        "provenance": dict(timeline.provenance),
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        _add(members, "header.json", json.dumps(header, sort_keys=True).encode())
        for name, dtype in COLUMNS.items():
            _add(members, f"{name}.npy", _preamble(dtype, len(timeline)) + getattr(timeline, name).tobytes())
    write_bytes_atomic(path, archive.getvalue())


def load_timeline(path: str | os.PathLike[str]) -> Timeline:
    """Read a timeline that :func:`save_timeline` wrote.

    Raises
    ------
    InputError
        Where the file cannot be read, is truncated or is something else.
    """
    try:
        with Path(path).open("rb") as file, zipfile.ZipFile(file) as archive:
            return _read(archive)
    except InputError as error:
        raise InputError(f"cannot read timeline {os.fspath(path)}: {error.message}") from error
    except FileNotFoundError as error:
        raise InputError(f"timeline {os.fspath(path)} does not exist") from error
    except _UNREADABLE as error:
        raise InputError(
            f"cannot read timeline {os.fspath(path)}", got=error, expected="a whole file written by attnsim"
        ) from error


def _add(members: zipfile.ZipFile, name: str, data: bytes) -> None:
    """A member with no date of its own: :class:`ZipInfo` has 1980."""
    members.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)


def _preamble(dtype: str, rows: int) -> bytes:
    """What precedes the numbers in a ``.npy`` file."""
    file = io.BytesIO()
    write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": (rows,)})
    return file.getvalue()


def _read(archive: zipfile.ZipFile) -> Timeline:
    header_bytes = archive.getinfo("header.json").file_size
    if header_bytes > MAX_HEADER_BYTES:
        raise InputError("header is too long", got=header_bytes, expected=f"at most {MAX_HEADER_BYTES} bytes")
    header = checked(json.loads(archive.read("header.json")), dict)
    if (header["format"], header["version"]) != (FORMAT, VERSION):
        raise InputError("version", got=f"{header['format']} {header['version']}", expected=f"{FORMAT} {VERSION}")
    rows = checked(header["rows"], int)
    if not 0 <= rows <= MAX_ROWS:
        raise InputError("number of rows", got=rows, expected=f"0 to {MAX_ROWS}")
    return Timeline(
        operations=tuple(read_operation(fields) for fields in header["operations"]),
        lanes=tuple(checked(lane, str) for lane in header["lanes"]),
        n_ranks=checked(header["n_ranks"], int),
        provenance=checked(header["provenance"], dict),
        **{name: _array(archive, name, dtype, rows) for name, dtype in COLUMNS.items()},
    )


def read_operation(fields: list[object]) -> OperationInfo:
    """An operation from the list of its fields."""
    number, name, kind, phase, step, category = fields
    return OperationInfo(
        checked(number, int),
        checked(name, str),
        checked(kind, str),
        checked(phase, str),
        checked(step, int),
        checked(category, str),
    )


def checked(value: object, expected: type[T]) -> T:
    """The value itself, refused if it is of another type."""
    if type(value) is not expected:
        raise InputError("header field has the wrong type", got=repr(value)[:80], expected=expected.__name__)
    return value


def _array(archive: zipfile.ZipFile, name: str, dtype: str, rows: int) -> NDArray[np.signedinteger]:
    preamble = _preamble(dtype, rows)
    expected_bytes = len(preamble) + rows * np.dtype(dtype).itemsize
    found_bytes = archive.getinfo(f"{name}.npy").file_size
    with archive.open(f"{name}.npy") as member:
        if found_bytes != expected_bytes or member.read(len(preamble)) != preamble:
            raise InputError(f"column {name} ({found_bytes} bytes)", expected=f"{rows} numbers of type {dtype}")
        return np.frombuffer(member.read(), dtype)

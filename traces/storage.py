"""Timelines in a file: a zip archive of NumPy columns and one JSON header (``.npz``).

    header.npy    bytes of {"format", "version", "n_ranks", "rows", "lanes", "operations", "provenance"}
    NAME.npy      one column of ``rows`` numbers for each of the timeline's columns

Reading trusts nothing: no pickles, every member's type and length must be what the header implies before its bytes
are read, and the :class:`Timeline` checks the rows themselves. The same timeline always gives the same bytes.
"""

from __future__ import annotations

import ast
import io
import json
import os
import zipfile
import zlib
from dataclasses import astuple
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from traces.atomic import write_bytes_atomic
from traces.errors import InputError
from traces.timeline import COLUMNS, OperationInfo, Timeline

FORMAT, VERSION = "attnsim timeline", 1
MAX_HEADER_BYTES = 256 << 20
T = TypeVar("T")
MAX_ROWS = 50_000_000

_NPY_MAGIC = b"\x93NUMPY\x01\x00"
_UNREADABLE = (
    OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, TypeError, SyntaxError,
    NotImplementedError, RuntimeError, MemoryError,
)  # fmt: skip


def save_timeline(timeline: Timeline, path: str | os.PathLike[str]) -> None:
    """Write a timeline to a file, whole or not at all.

    Raises
    ------
    InputError
        Where the path cannot be written or the provenance is not JSON.
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
    columns = {name: getattr(timeline, name) for name in COLUMNS}
    archive = io.BytesIO()
    np.savez_compressed(archive, allow_pickle=False, header=np.frombuffer(_to_json(header), np.uint8), **columns)
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


def _to_json(header: dict[str, object]) -> bytes:
    try:
        return json.dumps(header, allow_nan=False, sort_keys=True).encode()
    except (TypeError, ValueError) as error:
        raise InputError("provenance of a timeline is not JSON", got=error) from error


def _read(archive: zipfile.ZipFile) -> Timeline:
    header_bytes = archive.getinfo("header.npy").file_size
    if header_bytes > MAX_HEADER_BYTES:
        raise InputError("header is too long", got=header_bytes, expected=f"at most {MAX_HEADER_BYTES} bytes")
    header = json.loads(_array(archive, "header", "|u1", None).tobytes())
    if (header["format"], header["version"]) != (FORMAT, VERSION):
        raise InputError("version", got=f"{header['format']} {header['version']}", expected=f"{FORMAT} {VERSION}")
    rows = header["rows"]
    if not isinstance(rows, int) or not 0 <= rows <= MAX_ROWS:
        raise InputError("number of rows", got=rows, expected=f"0 to {MAX_ROWS}")
    return Timeline(
        operations=tuple(_operation(fields) for fields in header["operations"]),
        lanes=tuple(_checked(lane, str) for lane in header["lanes"]),
        n_ranks=_checked(header["n_ranks"], int),
        provenance=_checked(header["provenance"], dict),
        **{name: _array(archive, name, dtype, rows) for name, dtype in COLUMNS.items()},
    )


def _operation(fields: list[object]) -> OperationInfo:
    number, name, kind, phase, step, category = fields
    return OperationInfo(
        _checked(number, int),
        _checked(name, str),
        _checked(kind, str),
        _checked(phase, str),
        _checked(step, int),
        _checked(category, str),
    )


def _checked(value: object, expected: type[T]) -> T:
    if type(value) is not expected:
        raise InputError("header field has the wrong type", got=repr(value)[:80], expected=expected.__name__)
    return value


def _array(archive: zipfile.ZipFile, name: str, dtype: str, rows: int | None) -> NDArray[np.signedinteger]:
    """A column: what its member declares must be what we expect, before the rest is read."""
    with archive.open(f"{name}.npy") as member:
        if member.read(len(_NPY_MAGIC)) != _NPY_MAGIC:
            raise InputError(f"column {name} is not a NumPy array")
        length = int.from_bytes(member.read(2), "little")
        declared = ast.literal_eval(member.read(length).decode("ascii"))
        size = archive.getinfo(f"{name}.npy").file_size - len(_NPY_MAGIC) - 2 - length
        count = size // np.dtype(dtype).itemsize if rows is None else rows
        if declared != {"descr": dtype, "fortran_order": False, "shape": (count,)}:
            raise InputError(f"column {name}", got=declared, expected=f"{count} numbers of type {dtype}")
        if size != count * np.dtype(dtype).itemsize:
            raise InputError(f"column {name}", got=f"{size} bytes", expected=f"{count} numbers of type {dtype}")
        return np.frombuffer(member.read(), dtype)

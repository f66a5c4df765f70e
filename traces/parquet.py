"""Timelines as Parquet: the columns as they are, compressed, for pandas, DuckDB, Spark and whatever follows.

    columns    start_ns, end_ns, bytes int64; rank, lane, operation int32; no nulls
    metadata   key "attnsim timeline": {"version", "n_ranks", "lanes", "operations", "provenance"} in JSON

Needs pyarrow (``pip install attnsim[formats]``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from traces.atomic import write_bytes_atomic
from traces.errors import InputError
from traces.invariants import COLUMNS
from traces.storage import FORMAT, MAX_HEADER_BYTES, MAX_ROWS, VERSION, checked, read_operation
from traces.timeline import Timeline

ROW_GROUP = 1 << 20


def save_parquet(timeline: Timeline, path: str | os.PathLike[str]) -> None:
    """Write a timeline, whole or not at all.

    Raises
    ------
    InputError
        Where the path cannot be written, or pyarrow is missing.
    """
    arrow, parquet = _pyarrow()
    header = {
        "version": VERSION,
        "n_ranks": timeline.n_ranks,
        "lanes": timeline.lanes,
        "operations": [astuple(info) for info in timeline.operations],
        "provenance": dict(timeline.provenance),
    }
    schema = _schema(arrow).with_metadata({FORMAT: json.dumps(header, sort_keys=True)})
    table = arrow.table([arrow.array(getattr(timeline, name)) for name in COLUMNS], schema=schema)
    sink = arrow.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP)
    write_bytes_atomic(path, sink.getvalue().to_pybytes())


def save_rows(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write a table of plain values, whole or not at all.

    Raises
    ------
    InputError
        Where the path cannot be written, or pyarrow is missing.
    """
    arrow, parquet = _pyarrow()
    sink = arrow.BufferOutputStream()
    parquet.write_table(arrow.Table.from_pylist([dict(row) for row in rows]), sink, compression="zstd")
    write_bytes_atomic(path, sink.getvalue().to_pybytes())


def load_parquet(path: str | os.PathLike[str]) -> Timeline:
    """Read what :func:`save_parquet` wrote.

    Raises
    ------
    InputError
        Where the file cannot be read or is something else, or pyarrow is missing.
    """
    arrow, parquet = _pyarrow()
    if not Path(path).exists():
        raise InputError(f"timeline {os.fspath(path)} does not exist")
    try:
        with parquet.ParquetFile(path) as file:
            return _read(file, arrow)
    except InputError as error:
        raise InputError(f"cannot read timeline {os.fspath(path)}: {error.message}") from error
    except (OSError, ValueError, KeyError, TypeError, MemoryError, arrow.ArrowException) as error:
        raise InputError(
            f"cannot read timeline {os.fspath(path)}", got=error, expected="a whole Parquet file written by attnsim"
        ) from error


def _read(file: Any, arrow: Any) -> Timeline:
    metadata = file.schema_arrow.metadata or {}
    text = metadata.get(FORMAT.encode())
    if text is None or not file.schema_arrow.equals(_schema(arrow)):
        raise InputError("columns or metadata are not a timeline's", got=", ".join(file.schema_arrow.names)[:120])
    if len(text) > MAX_HEADER_BYTES or not 0 <= file.metadata.num_rows <= MAX_ROWS:
        raise InputError("it is too large", got=f"{file.metadata.num_rows} rows", expected=f"at most {MAX_ROWS}")
    header = checked(json.loads(text), dict)
    if header["version"] != VERSION:
        raise InputError("version", got=header["version"], expected=str(VERSION))
    table = file.read()
    if any(table[name].null_count for name in COLUMNS):
        raise InputError("a column has missing values")
    return Timeline(
        operations=tuple(read_operation(fields) for fields in header["operations"]),
        lanes=tuple(checked(lane, str) for lane in header["lanes"]),
        n_ranks=checked(header["n_ranks"], int),
        provenance=checked(header["provenance"], dict),
        **{name: table[name].to_numpy() for name in COLUMNS},
    )


def _schema(arrow: Any) -> Any:
    kinds = {"<i8": arrow.int64(), "<i4": arrow.int32()}
    return arrow.schema([arrow.field(name, kinds[dtype], nullable=False) for name, dtype in COLUMNS.items()])


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("Parquet needs the package pyarrow", remedy="pip install attnsim[formats]") from error
    return pyarrow, pyarrow.parquet

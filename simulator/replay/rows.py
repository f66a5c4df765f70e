"""Rows of published measurements: CSV with a header, one measurement a line.

A user's file is untrusted: bounded in size, rows and fields, with columns of the known files only. A field that a
source cannot use makes it skip that row with the reason, never fail.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from traces.bounded import read_bounded
from traces.errors import InputError

ATTENTION_COLUMNS = (
    "source", "table_or_figure", "method", "gpu", "n_gpus", "gpus_per_node", "intra_link", "inter_link",
    "model_or_shape", "seq_len", "mask", "dtype", "metric", "unit", "value", "notes",
)  # fmt: skip
"""Columns of measurements of attention and models."""

NETWORK_COLUMNS = (
    "source", "gpu", "nodes", "gpus", "link", "nic", "collective", "bytes", "algbw_GBps", "busbw_GBps", "time_us",
    "notes",
)  # fmt: skip
"""Columns of measurements of transfers and collectives."""

MAX_FILE_BYTES = 32 * 2**20
MAX_ROWS = 100_000
MAX_FIELD_CHARACTERS = 4096


class Skip(Exception):  # noqa: N818 - no error: the row's outcome
    """A row cannot be predicted; its text is the reason."""


@dataclass(frozen=True)
class Row:
    """One published measurement: text by column."""

    fields: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        """Text of a column, empty where the file has none."""
        return self.fields.get(column, "")

    def integer(self, column: str, largest: int) -> int:
        """A column as a whole number from 1 to ``largest``; else the row is skipped."""
        text = self[column].strip()
        if not re.fullmatch(r"\d{1,15}", text) or not 1 <= int(text) <= largest:
            raise Skip(f"{column} is no whole number from 1 to {largest:,}: {text[:40] or 'empty'}")
        return int(text)

    def number(self, column: str) -> float:
        """A column as a positive number; else the row is skipped."""
        text = self[column].strip()
        try:
            value = float(text)
        except ValueError:
            raise Skip(f"{column} is no number: {text[:60] or 'empty'}") from None
        if not (math.isfinite(value) and 0 < value < 1e18):
            raise Skip(f"{column} is not positive and finite: {text[:40]}")
        return value

    def shape(self) -> Mapping[str, str]:
        """``model_or_shape`` ("...;heads=64;kv_heads=8") as key and value."""
        parts = (part.split("=", 1) for part in self["model_or_shape"].split(";") if "=" in part)
        return {key.strip(): value.strip() for key, value in parts}

    def dims(self) -> tuple[int, int, int, int]:
        """Batch (1 where none is stated), heads, kv heads and head dim of ``model_or_shape``."""
        shape = Row(self.shape())
        batch = shape.integer("batch", 4096) if shape["batch"].isdigit() else 1
        heads, kv_heads = shape.integer("heads", 4096), shape.integer("kv_heads", 4096)
        if heads % kv_heads:
            raise Skip(f"{kv_heads} kv heads do not divide {heads} heads")
        return batch, heads, kv_heads, shape.integer("head_dim", 1024)


def read_rows(path: str | Path) -> list[Row]:
    """Rows of a CSV file.

    Raises
    ------
    InputError
        Where the file cannot be read, is too large, is no CSV, or has other columns than those of published
        measurements.
    """
    text = _read_text(Path(path))
    reader = csv.reader(text.splitlines(), strict=True)
    try:
        header = next(reader, [])
        _check_header(header, path)
        return list(_rows(reader, header, path))
    except csv.Error as error:
        raise InputError(f"rows {path}: line {reader.line_num} is not CSV", got=str(error)) from None


def _read_text(path: Path) -> str:
    try:
        return read_bounded(path, f"rows {path}", MAX_FILE_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"rows {path} is not UTF-8", got=f"byte {error.start}") from None


def _check_header(header: list[str], path: str | Path) -> None:
    known = [columns for columns in (ATTENTION_COLUMNS, NETWORK_COLUMNS) if set(header) <= set(columns)]
    if not header or not known or len(set(header)) < len(header):
        raise InputError(
            f"rows {path}: columns are not those of published measurements",
            got=", ".join(header)[:300] or "none",
            expected=" or ".join(", ".join(columns) for columns in (ATTENTION_COLUMNS, NETWORK_COLUMNS)),
        )


def _rows(reader: Iterator[list[str]], header: list[str], path: str | Path) -> Iterator[Row]:
    for number, values in enumerate(filter(None, reader), 1):
        if number > MAX_ROWS:
            raise InputError(f"rows {path}: too many rows", expected=f"at most {MAX_ROWS:,}")
        if len(values) != len(header):
            raise InputError(f"rows {path}: row {number} has {len(values)} fields", expected=str(len(header)))
        if any(len(value) > MAX_FIELD_CHARACTERS for value in values):
            raise InputError(f"rows {path}: row {number} is too long", expected=f"{MAX_FIELD_CHARACTERS} a field")
        yield Row(dict(zip(header, values, strict=True)))

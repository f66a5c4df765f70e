"""Records as JSON lines and Parquet: the round trip, and one message for whatever else a file may be."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.traces.strategies import timelines
from tests.traces.synthetic import ring_timeline
from traces.errors import InputError
from traces.invariants import COLUMNS
from traces.json_lines import load_json_lines, save_json_lines
from traces.parquet import load_parquet, save_parquet
from traces.sources import RECORDS, load_recording, save_recording
from traces.storage import FORMAT

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(timeline=timelines())
def test_round_trip(timeline, tmp_path):
    for suffix, (load, save) in RECORDS.items():
        path = tmp_path / f"t{suffix}"
        save(timeline, path)
        loaded = load(path)
        assert loaded.same_as(timeline), suffix
        assert loaded.provenance == timeline.provenance
        for name in COLUMNS:
            assert np.array_equal(getattr(loaded, name), getattr(timeline, name))
        path.unlink()


def test_gzip_is_gzip_and_the_same_bytes_each_time(tmp_path):
    timeline = ring_timeline(2)
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        save_json_lines(timeline, tmp_path / name)
    save_json_lines(timeline, tmp_path / "a.jsonl")
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()) == (tmp_path / "a.jsonl").read_bytes()
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_json_lines_are_readable_without_us(tmp_path):
    timeline = ring_timeline(2)
    save_json_lines(timeline, tmp_path / "t.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert (lines[0]["format"], lines[0]["version"]) == ("attnsim timeline", 1)
    rows = lines[1 + len(timeline.operations) :]
    assert [row["end_ns"] for row in rows] == timeline.end_ns.tolist()


def test_parquet_is_readable_without_us(tmp_path):
    timeline = ring_timeline(2)
    save_parquet(timeline, tmp_path / "t.parquet")
    assert pq.read_table(tmp_path / "t.parquet")["start_ns"].to_pylist() == timeline.start_ns.tolist()


def edited(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        path.write_text("".join(change(path.read_text().splitlines(keepends=True))))

    return edit


def first_line(**changes: object) -> Callable[[Path], None]:
    return edited(lambda lines: [json.dumps(json.loads(lines[0]) | changes) + "\n", *lines[1:]])


def last_line(text: str) -> Callable[[Path], None]:
    return edited(lambda lines: [*lines[:-1], text + "\n"])


ROW = {"start_ns": 0, "end_ns": 1, "rank": 0, "lane": 0, "operation": 0, "bytes": 0}
BAD = {
    "another format": (first_line(format="x"), "version: got x 1"),
    "a later version": (first_line(version=2), "version: got attnsim timeline 2, expected attnsim timeline 1"),
    "an unknown field": (first_line(more=1), "line 1 has other fields"),
    "rows as text": (first_line(rows="9"), "line 1: rows has the wrong type: got '9'"),
    "a row too few": (edited(lambda lines: lines[:-1]), "is missing, cut off"),
    "a row too many": (edited(lambda lines: [*lines, lines[-1]]), "is one too many"),
    "half a line": (edited(lambda lines: [*lines[:-1], lines[-1][:9]]), "is missing, cut off"),
    "not JSON": (last_line("{"), "is not JSON"),
    "a number": (last_line("1"), "has other fields: got 1"),
    "a fraction": (last_line(json.dumps(ROW | {"rank": 0.5})), "rank has the wrong type: got 0.5"),
    "a flag": (last_line(json.dumps(ROW | {"rank": True})), "rank has the wrong type: got True"),
    "a huge number": (last_line(json.dumps(ROW | {"bytes": 1 << 70})), "number over 64 bits"),
    "an impossible row": (last_line(json.dumps(ROW | {"end_ns": -1})), "0 <= start <= end"),
    "lanes of numbers": (first_line(lanes=[1, 2, 3]), "lanes: got"),
    "a billion rows": (first_line(rows=10**9), "number of rows: got 1000000000"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_json_lines(tmp_path, name):
    change, message = BAD[name]
    path = tmp_path / "t.jsonl"
    save_json_lines(ring_timeline(2), path)
    change(path)
    with pytest.raises(InputError, match=message) as caught:
        load_json_lines(path)
    assert str(caught.value).startswith(f"cannot read timeline {path}")


def test_truncated_gzip(tmp_path):
    save_json_lines(ring_timeline(2), tmp_path / "t.jsonl.gz")
    (tmp_path / "t.jsonl.gz").write_bytes((tmp_path / "t.jsonl.gz").read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot read timeline"):
        load_json_lines(tmp_path / "t.jsonl.gz")


@pytest.mark.parametrize("load", [load_json_lines, load_parquet])
def test_missing_and_foreign_files(tmp_path, load):
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "t")
    (tmp_path / "t").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(InputError, match="cannot read timeline"):
        load(tmp_path / "t")


def rewritten(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    save_parquet(ring_timeline(2), path)
    pq.write_table(change(pq.read_table(path)), path)


def metadata(**changes: object) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        header = json.loads(table.schema.metadata[FORMAT.encode()]) | changes
        return table.replace_schema_metadata({FORMAT: json.dumps(header)})

    return change


BAD_PARQUET = {
    "no metadata": (lambda table: table.replace_schema_metadata(None), "columns or metadata"),
    "another version": (metadata(version=9), "version: got 9"),
    "a column less": (lambda table: table.drop_columns(["bytes"]), "columns or metadata"),
    "ranks as text": (metadata(n_ranks="2"), "wrong type"),
    "rows of ranks that are not there": (metadata(n_ranks=1), "rank is out of range"),
}


@pytest.mark.parametrize("name", BAD_PARQUET)
def test_bad_parquet(tmp_path, name):
    change, message = BAD_PARQUET[name]
    rewritten(tmp_path / "t.parquet", change)
    with pytest.raises(InputError, match=message):
        load_parquet(tmp_path / "t.parquet")


def test_truncated_parquet(tmp_path):
    save_parquet(ring_timeline(2), tmp_path / "t.parquet")
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-30])
    with pytest.raises(InputError, match="expected a whole Parquet file"):
        load_parquet(tmp_path / "t.parquet")


@pytest.mark.parametrize("name", ["t.npz", "t.jsonl", "t.jsonl.gz", "t.parquet", "folder"])
def test_sources_are_told_by_their_names(tmp_path, name):
    save_parquet(ring_timeline(2), tmp_path / "from.parquet")
    recording = load_recording(tmp_path / "from.parquet")
    save_recording(recording, tmp_path / name)
    assert load_recording(tmp_path / name).timeline.makespan_ns == ring_timeline(2).makespan_ns


def test_unknown_suffix(tmp_path):
    save_parquet(ring_timeline(2), tmp_path / "from.parquet")
    with pytest.raises(InputError, match=r"suffix of .*t\.csv is unknown"):
        save_recording(load_recording(tmp_path / "from.parquet"), tmp_path / "t.csv")

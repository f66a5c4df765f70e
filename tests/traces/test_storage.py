"""Timelines in files: the round trip, and one message for whatever else a file may be."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.traces.strategies import timelines
from tests.traces.synthetic import ring_timeline
from traces.errors import InputError
from traces.invariants import COLUMNS, MAX_RANKS
from traces.storage import MAX_ROWS, load_timeline, save_timeline

Members = dict[str, bytes]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(timeline=timelines())
def test_round_trip(timeline, tmp_path):
    save_timeline(timeline, tmp_path / "t.npz")
    loaded = load_timeline(tmp_path / "t.npz")
    assert loaded.same_as(timeline)
    assert loaded.provenance == timeline.provenance
    for name in COLUMNS:
        assert np.array_equal(getattr(loaded, name), getattr(timeline, name))
        assert not getattr(loaded, name).flags.writeable


def test_same_timeline_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_timeline(ring_timeline(3), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_columns_are_plain_numpy(tmp_path):
    timeline = ring_timeline(2)
    save_timeline(timeline, tmp_path / "t.npz")
    with np.load(tmp_path / "t.npz", allow_pickle=False) as archive:
        assert np.array_equal(archive["end_ns"], timeline.end_ns)


def test_nothing_is_written_where_it_cannot_be(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        save_timeline(ring_timeline(2), tmp_path / "missing" / "t.npz")


def rewritten(path: Path, change: Callable[[Members], Members]) -> None:
    """The saved timeline with other members."""
    save_timeline(ring_timeline(2), path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in change(members).items():
            archive.writestr(name, data)


def header(**changes: object) -> Callable[[Members], Members]:
    return lambda members: members | {
        "header.json": json.dumps(json.loads(members["header.json"]) | changes).encode()
    }  # fmt: skip


def column(name: str, values: object) -> Callable[[Members], Members]:
    file = io.BytesIO()
    np.save(file, np.asarray(values), allow_pickle=True)
    return lambda members: members | {f"{name}.npy": file.getvalue()}


def without(name: str) -> Callable[[Members], Members]:
    return lambda members: {each: data for each, data in members.items() if each != name}


ROWS = len(ring_timeline(2))
OPERATION = [0, "merge", "merge", "forward", 0, "compute"]
BAD = {
    "no header": (without("header.json"), "header.json"),
    "no column": (without("lane.npy"), "lane.npy"),
    "header is no JSON": (lambda members: members | {"header.json": b"{"}, "cannot read timeline"),
    "header is nested too deep": (lambda members: members | {"header.json": b"[" * 10**6}, "cannot read timeline"),
    "header is a list": (lambda members: members | {"header.json": b"[]"}, "wrong type: got .*, expected dict"),
    "another format": (header(format="npz"), "version: got npz 1, expected attnsim timeline 1"),
    "another version": (header(version=2), "version: got attnsim timeline 2"),
    "rows as text": (header(rows="24"), "wrong type: got '24', expected int"),
    "negative rows": (header(rows=-1), "number of rows: got -1"),
    "too many rows": (header(rows=MAX_ROWS + 1), "number of rows"),
    "rows that are not there": (header(rows=ROWS + 1), f"column start_ns .* expected {ROWS + 1} numbers of type <i8"),
    "no ranks": (header(n_ranks=0), "number of ranks"),
    "too many ranks": (header(n_ranks=MAX_RANKS + 1), "number of ranks"),
    "lanes as numbers": (header(lanes=[1]), "wrong type: got 1, expected str"),
    "fewer lanes": (header(lanes=["compute"]), "column lane is out of range"),
    "fewer operations": (header(operations=[OPERATION]), "column operation is out of range"),
    "operation of five fields": (header(operations=[OPERATION[:5]]), "not enough values"),
    "operation with a list": (
        header(operations=[[0, [], "merge", "forward", 0, "compute"]]),
        r"got \[\], expected str",
    ),
    "operation of unknown category": (header(operations=[[*OPERATION[:5], "magic"]]), "got magic, expected one of"),
    "provenance as text": (header(provenance="me"), "wrong type: got 'me', expected dict"),
    "column of fractions": (column("end_ns", np.zeros(ROWS)), f"column end_ns .* {ROWS} numbers of type <i8"),
    "column of objects": (column("end_ns", np.array([{}] * ROWS)), "column end_ns"),
    "column too short": (column("end_ns", np.zeros(ROWS - 1, dtype="<i8")), "column end_ns"),
    "column of two dimensions": (column("end_ns", np.zeros((1, ROWS), dtype="<i8")), "column end_ns"),
    "rows that cannot be": (column("start_ns", np.full(ROWS, 2**62)), "0 <= start <= end"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_members(tmp_path, name):
    change, message = BAD[name]
    rewritten(tmp_path / "t.npz", change)
    with pytest.raises(InputError, match=message) as caught:
        load_timeline(tmp_path / "t.npz")
    assert str(caught.value).startswith(f"cannot read timeline {tmp_path / 't.npz'}")


def test_pickle_is_never_run(tmp_path):
    class Loud:
        def __reduce__(self) -> tuple[object, ...]:
            return (tmp_path.joinpath("owned").touch, ())

    rewritten(tmp_path / "t.npz", lambda members: members | {"end_ns.npy": pickle.dumps(Loud())})
    with pytest.raises(InputError, match="column end_ns"):
        load_timeline(tmp_path / "t.npz")
    assert not (tmp_path / "owned").exists()


def test_column_that_inflates_is_not_read(tmp_path):
    """Much in little: refused by its size, before anything is inflated."""
    rewritten(tmp_path / "t.npz", lambda members: members | {"end_ns.npy": members["end_ns.npy"] + bytes(8 << 20)})
    with pytest.raises(InputError, match=r"column end_ns \(8\d+ bytes\): expected \d+ numbers"):
        load_timeline(tmp_path / "t.npz")


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_truncated_file(tmp_path, kept):
    save_timeline(ring_timeline(2), tmp_path / "t.npz")
    data = (tmp_path / "t.npz").read_bytes()
    (tmp_path / "t.npz").write_bytes(data[:kept])
    with pytest.raises(InputError, match="expected a whole file written by attnsim"):
        load_timeline(tmp_path / "t.npz")


def test_every_flipped_byte_is_refused_or_harmless(tmp_path):
    timeline = ring_timeline(2)
    save_timeline(timeline, tmp_path / "t.npz")
    data = (tmp_path / "t.npz").read_bytes()
    refused = 0
    for at in range(0, len(data), 7):
        (tmp_path / "t.npz").write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        try:
            assert load_timeline(tmp_path / "t.npz").same_as(timeline)
        except InputError:
            refused += 1
    assert refused > len(data) / 7 / 2


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_timeline(tmp_path / "t.npz")
    with pytest.raises(InputError, match="cannot read timeline"):
        load_timeline(tmp_path)

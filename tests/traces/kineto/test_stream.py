"""Events of a trace file: the same in whatever pieces they arrive, in bounded memory, and one message for bad files."""

from __future__ import annotations

import gzip
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.traces.kineto.places import RECORDED, SINGLE
from traces.errors import InputError
from traces.kineto import stream
from traces.kineto.stream import EventStream, to_ns

SMALL = '{"schemaVersion": 1, "distributedInfo": {"rank": 0}, '
SMALL += '"traceEvents": [{"ph": "X", "ts": 1.250}, {}], "traceName": "a"}'


def read(path) -> tuple[list[dict[str, object]], dict[str, object]]:
    found = EventStream(path)
    return list(found), found.header


def write(tmp_path, text: str):
    path = tmp_path / "t.json"
    path.write_text(text)
    return path


@pytest.mark.parametrize("piece", [1, 7, 64, 1 << 20])
def test_events_and_header_in_pieces_of_any_size(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(stream, "PIECE_CHARACTERS", piece)
    events, header = read(write(tmp_path, SMALL))
    assert events == [{"ph": "X", "ts": "1.250"}, {}]
    assert header == {"schemaVersion": 1, "distributedInfo": {"rank": 0}, "traceName": "a"}


@pytest.mark.parametrize("name", SINGLE)
def test_recorded_traces_are_what_json_reads(name, monkeypatch):
    monkeypatch.setattr(stream, "PIECE_CHARACTERS", 1000)
    whole = json.loads(gzip.decompress((RECORDED / name).read_bytes()), parse_float=str)
    events, header = read(RECORDED / name)
    assert events == whole.pop("traceEvents")
    assert header == whole


def test_a_bare_list_is_a_trace(tmp_path):
    assert read(write(tmp_path, '[{"ph": "X"}, {"ph": "M"}]')) == ([{"ph": "X"}, {"ph": "M"}], {})


@pytest.mark.parametrize("kept", range(len(SMALL)))
def test_truncation_anywhere_is_said(tmp_path, kept):
    with pytest.raises(InputError, match=r"cannot read trace .*t\.json: it ends"):
        read(write(tmp_path, SMALL[:kept]))


@pytest.mark.parametrize("kept", [3, 10, 500, -9])
def test_truncated_gzip_is_said(tmp_path, kept):
    (tmp_path / "t.json.gz").write_bytes((RECORDED / SINGLE[0]).read_bytes()[:kept])
    with pytest.raises(InputError, match="gzip data is truncated|cannot read trace"):
        read(tmp_path / "t.json.gz")


BAD = {
    "text": ("hello", "does not begin with an object or a list: got 'h'"),
    "another JSON": ('{"a": 1}', "it has no traceEvents: got a"),
    "events that are numbers": ('{"traceEvents": [1, 2]}', "event 0 is not an object: got 1"),
    "events that are no list": ('{"traceEvents": {}}', r"expected '\['"),
    "a comma too many": ('{"traceEvents": [{"a": 1} {"b": 2}]' + " " * 100 + "}", None),
    "nonsense in an event": (
        '{"traceEvents": [{"a": nonsense}' + "," + '{"b": 1},' * 50 + "]}",
        "not JSON after event 0",
    ),
    "deep nesting": ('{"traceEvents": [' + "[" * 100_000, "nested too deeply|is not an object|it ends"),
    "binary": ("\x00\x01", "does not begin"),
}


@pytest.mark.parametrize("name", BAD)
def test_foreign_files_get_a_message(tmp_path, name):
    text, message = BAD[name]
    path = write(tmp_path, text)
    if message is None:
        assert len(read(path)[0]) == 2
        return
    with pytest.raises(InputError, match=message):
        read(path)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "t.json").write_bytes(b'{"traceEvents": [{"name": "\xff\xfe"}]}')
    with pytest.raises(InputError, match="cannot read trace"):
        read(tmp_path / "t.json")


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "t.json")


def test_a_value_without_end_is_not_read_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "MAX_EVENT_CHARACTERS", 10_000)
    monkeypatch.setattr(stream, "PIECE_CHARACTERS", 1000)
    with pytest.raises(InputError, match="one value after event 0 is too long"):
        read(write(tmp_path, '{"traceEvents": [{"name": "' + "x" * 50_000))


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "PIECE_CHARACTERS", 1 << 14)
    event = json.dumps({"ph": "X", "cat": "kernel", "name": "n" * 200, "ts": 1.5})
    peaks = []
    for count in (1000, 20_000):
        path = write(tmp_path, '{"traceEvents": [' + ",".join([event] * count) + "]}")
        tracemalloc.start()
        assert sum(1 for _ in EventStream(path)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@settings(max_examples=200)
@given(st.integers(0, 10**18))
def test_times_are_exact(time_ns):
    assert to_ns(f"{time_ns // 1000}.{time_ns % 1000:03d}") == time_ns
    assert to_ns(time_ns // 1000) == time_ns // 1000 * 1000


@pytest.mark.parametrize("text", ["soon", "", None, "nan", "1e999", [1]])
def test_times_that_are_none(text):
    with pytest.raises(InputError, match="a time is not a number"):
        to_ns(text)

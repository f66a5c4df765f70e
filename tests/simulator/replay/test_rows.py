"""Rows of a user's file: read whole or refused with one message; unusable fields skip the row."""

import pytest

from simulator.replay.rows import MAX_FIELD_CHARACTERS, Row, Skip, read_rows
from traces.errors import InputError


@pytest.fixture
def write(tmp_path):
    def write_file(data):
        path = tmp_path / "rows.csv"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return write_file


def test_rows_in_order_with_quotes_and_a_byte_order_mark(write):
    rows = read_rows(write('\ufeffmethod,value,notes\nRing,1.5,"a, ""b"""\n\nUlysses,2,\n'))
    assert [(row["method"], row.number("value"), row["notes"]) for row in rows] == [
        ("Ring", 1.5, 'a, "b"'),
        ("Ulysses", 2, ""),
    ]
    assert rows[0]["gpu"] == ""


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ("", "columns are not those"),
        ("method,colour\nRing,red\n", "columns are not those"),
        ("method,method\nRing,Ring\n", "columns are not those"),
        ("method,busbw_GBps\nRing,1\n", "columns are not those"),
        ("method,value\nRing\n", "row 1 has 1 fields"),
        ('method,value\n"Ring,1\n', "not CSV"),
        (b"method,value\n\xff,1\n", "not UTF-8"),
        ("method,value\n" + "x" * (MAX_FIELD_CHARACTERS + 1) + ",1\n", "too long"),
        ("method\n" + "x\n" * 100_001, "too many rows"),
        (b"x" * (32 * 2**20 + 1), "too large"),
    ],
)
def test_unusable_files_are_refused(write, data, match):
    with pytest.raises(InputError, match=match):
        read_rows(write(data))


@pytest.mark.parametrize("path", ["missing.csv", "a\0b", "/"])
def test_unreadable_files_are_refused(path):
    with pytest.raises(InputError, match="cannot be read"):
        read_rows(path)


@pytest.mark.parametrize("text", ["", "OOM", "nan", "inf", "-3", "0", "1e300"])
def test_bad_numbers_skip_the_row(text):
    with pytest.raises(Skip, match="value"):
        Row({"value": text}).number("value")


@pytest.mark.parametrize("text", ["", "12.5", "-1", "0", "9" * 40, "4097", "1k"])
def test_bad_whole_numbers_skip_the_row(text):
    with pytest.raises(Skip, match="n_gpus"):
        Row({"n_gpus": text}).integer("n_gpus", 4096)


def test_shape_of_attention():
    row = Row({"model_or_shape": "attention only;batch=2;heads=32;kv_heads=8;head_dim=128;layers=n/a"})
    assert row.dims() == (2, 32, 8, 128)
    assert Row({"model_or_shape": "batch=n/s;heads=4;kv_heads=4;head_dim=64"}).dims() == (1, 4, 4, 64)
    with pytest.raises(Skip, match="do not divide"):
        Row({"model_or_shape": "heads=6;kv_heads=4;head_dim=64"}).dims()
    with pytest.raises(Skip, match="heads"):
        Row({"model_or_shape": "LLaMA"}).dims()

"""Files from outside: whole up to the limit, refused beyond it, one message where they cannot be read."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from traces.bounded import read_bounded
from traces.errors import InputError


def test_whole_up_to_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"12345678")
    assert read_bounded(file, "file f", 8) == b"12345678"
    with pytest.raises(InputError, match="file f is too large: expected at most 7 bytes"):
        read_bounded(file, "file f", 7)


def test_a_device_without_a_size_is_bounded_too() -> None:
    with pytest.raises(InputError, match="too large"):
        read_bounded("/dev/zero", "file", 1 << 16)


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"text",))
    writer.start()
    assert read_bounded(pipe, "pipe", 8) == b"text"
    writer.join()


@pytest.mark.parametrize(("name", "reason"), [("none", "No such file"), (".", "Is a directory"), ("\0", "null")])
def test_what_cannot_be_read(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(InputError, match=f"file f cannot be read: got .*{reason}"):
        read_bounded(tmp_path / name, "file f", 8)


@pytest.mark.parametrize("name", ["none", "\0"])
def test_the_error_of_a_missing_file_is_the_callers(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="no such model"):
        read_bounded(tmp_path / name, "file f", 8, InputError("no such model"))

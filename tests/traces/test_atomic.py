"""Results are written whole or not at all, and nothing of anybody else's is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from traces.atomic import write_bytes_atomic, write_folder_atomic, write_text_atomic
from traces.errors import InputError


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def fail(file) -> None:
    file.write("half")
    raise OSError(28, "No space left on device")


def test_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    write_text_atomic(tmp_path / "r.json", "old")
    write_text_atomic(tmp_path / "r.json", "é")
    assert (tmp_path / "r.json").read_text(encoding="utf-8") == "é"
    assert names(tmp_path) == ["r.json"]


def test_failed_write_leaves_the_older_file(tmp_path, monkeypatch):
    write_text_atomic(tmp_path / "r.json", "old")

    def no_rename(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", no_rename)
    with pytest.raises(InputError, match="cannot write .*r.json: got No space left on device"):
        write_text_atomic(tmp_path / "r.json", "new")
    assert names(tmp_path) == ["r.json"]
    assert (tmp_path / "r.json").read_text() == "old"


def test_link_is_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_bytes_atomic(tmp_path / "link", b"1")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"1"


def test_device_is_written_to():
    write_bytes_atomic("/dev/null", b"1")
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("place", ["missing/r.json", "file/r.json", "folder"])
def test_file_that_cannot_be_written(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=f"cannot write .*{place}"):
        write_text_atomic(tmp_path / place, "text")
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize("before", [[], ["rank0.json"], ["rank0.json", "rank1.json", "rank12.json"]])
def test_folder_replaces_an_earlier_result_as_a_whole(tmp_path, before):
    folder = tmp_path / "traces"
    for name in before:
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("old")
    write_folder_atomic(folder, {"rank0.json": b"new", "rank1.json": lambda file: file.write("newer")})
    assert names(folder) == ["rank0.json", "rank1.json"]
    assert ((folder / "rank0.json").read_text(), (folder / "rank1.json").read_text()) == ("new", "newer")
    assert names(tmp_path) == ["traces"]


@pytest.mark.parametrize("foreign", ["thesis.tex", "rank0.json.bak", "ranks.json", ".hidden"])
def test_foreign_folder_is_left_alone(tmp_path, foreign):
    (tmp_path / foreign).write_text("precious")
    (tmp_path / "rank0.json").write_text("old")
    with pytest.raises(InputError, match=f"holds other files: got {foreign}, expected a new folder"):
        write_folder_atomic(tmp_path, {"rank0.json": b"new"})
    assert (tmp_path / foreign).read_text() == "precious"
    assert (tmp_path / "rank0.json").read_text() == "old"


def test_folder_named_like_a_trace_is_foreign(tmp_path):
    (tmp_path / "rank0.json").mkdir()
    with pytest.raises(InputError, match="holds other files"):
        write_folder_atomic(tmp_path, {"rank0.json": b"new"})


@pytest.mark.parametrize("before", [False, True])
def test_failed_folder_leaves_what_was_there(tmp_path, before):
    folder = tmp_path / "traces"
    if before:
        write_folder_atomic(folder, {"rank0.json": b"old"})
    with pytest.raises(InputError, match="cannot write .*traces: got No space left"):
        write_folder_atomic(folder, {"rank0.json": b"new", "rank1.json": fail})
    assert names(tmp_path) == (["traces"] if before else [])
    assert not before or (folder / "rank0.json").read_text() == "old"


def test_failed_swap_brings_the_older_folder_back(tmp_path, monkeypatch):
    folder = tmp_path / "traces"
    write_folder_atomic(folder, {"rank0.json": b"old"})
    rename = Path.rename
    calls = []

    def second_fails(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(InputError, match="Input/output error"):
        write_folder_atomic(folder, {"rank0.json": b"new"})
    assert names(tmp_path) == ["traces"]
    assert (folder / "rank0.json").read_text() == "old"


def test_file_in_the_folders_place(tmp_path):
    (tmp_path / "traces").write_text("precious")
    with pytest.raises(InputError, match="cannot write .*traces"):
        write_folder_atomic(tmp_path / "traces", {"rank0.json": b"new"})
    assert (tmp_path / "traces").read_text() == "precious"

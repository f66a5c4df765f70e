"""Results are written whole or not at all.

    file:    write NAME's temporary sibling, flush it to disk, rename it over NAME
    folder:  fill a temporary sibling folder, move an older result aside, rename, remove the older one

A rename within one file system is atomic, so a file is always the old one or the new one. A folder that is not empty
takes two renames: a reader may find none for an instant, but never half of one. A failure leaves the older result and
no debris. Every OSError becomes an :class:`InputError` that names the path.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from traces.errors import InputError

Writer = Callable[[TextIO], None]
Content = bytes | Writer | Iterable[bytes]


def write_text_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file (UTF-8) whole or not at all."""
    write_bytes_atomic(path, text.encode())


def write_bytes_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all; a device such as ``/dev/stdout`` is written to, not replaced.

    Raises
    ------
    InputError
        Where the path cannot be written.
    """
    target = Path(path).resolve()
    with _explained(path):
        if target.exists() and not (target.is_file() or target.is_dir()):
            target.write_bytes(data)
            return
        with _replacing(target) as temporary:
            _write_durably(temporary, data)


def write_stream_atomic(path: str | os.PathLike[str], write: Writer) -> None:
    """Write a text file whole or not at all, piece by piece; gzip where its name ends in ``.gz``.

    Raises
    ------
    InputError
        Where the path cannot be written.
    """
    target = Path(path).resolve()
    zipped = target.name.endswith(".gz")
    with _explained(path), _replacing(target) as temporary, _text_file(temporary, zipped=zipped) as file:
        write(file)


def write_folder_atomic(
    folder: str | os.PathLike[str], files: Mapping[str, Content], owned: str = r"rank\d+\.json"
) -> None:
    """Write a folder of files whole or not at all.

    Parameters
    ----------
    folder : new, or empty, or holding only an earlier result, which is replaced.
    files : contents of each file: bytes, pieces of them, or a function that writes text to an open file.
    owned : regular expression for the names of an earlier result's files.

    Raises
    ------
    InputError
        Where the folder holds anything else, or cannot be written.
    """
    target = Path(folder).resolve()
    with _explained(folder):
        _check_replaceable(target, owned)
        temporary = _sibling(target)
        try:
            temporary.mkdir()
            for name, content in files.items():
                _write_member(temporary / name, content)
            _swap_in(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _sibling(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A sibling to write to, which then takes the target's place; gone where anything fails."""
    temporary = _sibling(target)
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _write_member(path: Path, content: Content) -> None:
    if callable(content):
        with path.open("x", encoding="utf-8", newline="\n") as text:
            content(text)
        return
    with path.open("xb") as file:
        file.writelines([content] if isinstance(content, bytes) else content)


@contextmanager
def _text_file(path: Path, *, zipped: bool) -> Iterator[TextIO]:
    """A new file; gzip without name and date, so that the same text gives the same bytes."""
    if not zipped:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            yield file
        return
    with (
        path.open("xb") as raw,
        gzip.GzipFile("", "wb", 4, raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as file,
    ):
        yield file


def _check_replaceable(target: Path, owned: str) -> None:
    if not target.exists():
        return
    foreign = [entry.name for entry in target.iterdir() if not (entry.is_file() and re.fullmatch(owned, entry.name))]
    if foreign:
        raise InputError(
            f"folder {target} holds other files",
            got=min(foreign),
            expected=f"a new folder, or one with nothing but {owned}",
            remedy="name another folder",
        )


def _swap_in(temporary: Path, target: Path) -> None:
    if not target.exists():
        temporary.rename(target)
        return
    older = _sibling(target)
    target.rename(older)
    try:
        temporary.rename(target)
    except OSError:
        older.rename(target)
        raise
    shutil.rmtree(older, ignore_errors=True)


@contextmanager
def _explained(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {os.fspath(path)}", got=error.strerror or str(error)) from error

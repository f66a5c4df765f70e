"""A folder of trace folders, written whole or not at all: filled beside its place and renamed into it."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from traces.errors import InputError

OUR_FILES = re.compile(r"rank\d+\.json|.+\.\d+\.et|comm_groups\.json")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill, which becomes ``folder`` at the end unless an error is raised.

    Raises
    ------
    InputError
        Where ``folder`` holds anything but an earlier result of this kind, or cannot be written.
    """
    target = folder.resolve()
    temporary, older = (target.with_name(f".{target.name}.{secrets.token_hex(4)}.{kind}") for kind in ("tmp", "old"))
    try:
        _check_replaceable(target)
        temporary.mkdir()
        yield temporary
        _swap_in(temporary, target, older)
    except OSError as error:
        raise InputError(f"cannot write {folder}", got=error.strerror or str(error)) from error
    finally:
        for left in (temporary, older):
            shutil.rmtree(left, ignore_errors=True)


def _swap_in(temporary: Path, target: Path, older: Path) -> None:
    if target.exists():
        target.rename(older)
    try:
        temporary.rename(target)
    except OSError:
        if older.exists():
            older.rename(target)
        raise


def _check_replaceable(target: Path) -> None:
    entries = list(target.iterdir()) if target.exists() else []
    foreign = [entry.name for entry in entries if not _is_trace_folder(entry)]
    if foreign:
        raise InputError(
            f"folder {target} holds other files", got=min(foreign), expected="a new folder, or an earlier comparison",
            remedy="name another folder",
        )  # fmt: skip


def _is_trace_folder(entry: Path) -> bool:
    return entry.is_dir() and all(OUR_FILES.fullmatch(each.name) and each.is_file() for each in entry.iterdir())

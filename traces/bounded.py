"""Files from outside are read up to a limit: what is larger is refused, whatever the file system says of its size."""

from __future__ import annotations

import os
from pathlib import Path

from traces.errors import InputError


def read_bounded(path: str | os.PathLike[str], what: str, most_bytes: int, missing: InputError | None = None) -> bytes:
    """The bytes of a file.

    A device or a pipe has no size of its own, so that one is never asked for its size: it is read up to the limit.

    Parameters
    ----------
    path : of the file.
    what : how errors name the file, as ``model file x.json``.
    most_bytes : more are refused.
    missing : raised where there is no such file, instead of a message that it cannot be read.

    Raises
    ------
    InputError
        Where the file is too large, or cannot be read.
    """
    try:
        with Path(path).open("rb") as opened:
            data = opened.read(most_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        if missing is not None and isinstance(error, FileNotFoundError | ValueError):
            raise missing from None
        raise InputError(f"{what} cannot be read", got=getattr(error, "strerror", None) or str(error)) from None
    if len(data) > most_bytes:
        raise InputError(f"{what} is too large", expected=f"at most {most_bytes} bytes")
    return data

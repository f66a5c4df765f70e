"""Events of a trace file, one after another, in bounded memory.

    {"schemaVersion": 1, ..., "traceEvents": [{...}, {...}, ...], "traceName": "..."}      or the bare list of events

The file is decompressed and decoded in pieces; of the events only one is held at a time, whatever the file's size.
Numbers with a point stay text, so that microseconds with three decimals become nanoseconds without rounding.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from traces.errors import InputError

PIECE_CHARACTERS = 1 << 20
MAX_EVENT_CHARACTERS = 16 << 20
MAX_HEADER_MEMBERS = 1000
GZIP_MAGIC = b"\x1f\x8b"
SPACE = " \t\r\n"
BETWEEN = re.compile(r"[ \t\r\n]*,?[ \t\r\n]*")
WHOLE_FILE = "a whole Chrome trace, as PyTorch's profiler exports it"

Event = dict[str, Any]


class EventStream:
    """A trace file being read: iterate over it for the events; what stands around them is then in ``header``.

    Parameters
    ----------
    path : ``.json`` or gzip of it, told by its first bytes.

    Attributes
    ----------
    header : members of the outermost object other than the events; those before the events are there from the start.

    Raises
    ------
    InputError
        Where the file cannot be read, is truncated, or is something else.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.header: dict[str, Any] = {}

    def __iter__(self) -> Iterator[Event]:
        try:
            with self.path.open("rb") as raw, _decoded(raw) as file:
                yield from _Scanner(file, self.header).events()
        except InputError as error:
            raise InputError(f"cannot read trace {self.path}: {error.message}") from error
        except FileNotFoundError as error:
            raise InputError(f"trace {self.path} does not exist") from error
        except (EOFError, zlib.error) as error:
            raise InputError(f"cannot read trace {self.path}: gzip data is truncated", expected=WHOLE_FILE) from error
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read trace {self.path}", got=error, expected=WHOLE_FILE) from error


def _decoded(raw: io.BufferedReader) -> IO[str]:
    zipped = raw.peek(2)[:2] == GZIP_MAGIC
    return io.TextIOWrapper(gzip.GzipFile(fileobj=raw) if zipped else raw, encoding="utf-8")


class _Scanner:
    """JSON values off a file, each decoded once it is wholly in the buffer."""

    def __init__(self, file: IO[str], header: dict[str, Any]) -> None:
        self._file, self._header = file, header
        self._decode = json.JSONDecoder(parse_float=str).raw_decode
        self._buffer, self._at, self._ended = "", 0, False
        self._done = 0

    def events(self) -> Iterator[Event]:
        """The events; members around them go into the header."""
        opening = self._next()
        if opening == "[":
            yield from self._list()
            return
        if opening != "{":
            raise InputError("it does not begin with an object or a list", got=repr(opening), expected=WHOLE_FILE)
        found = False
        for _ in range(MAX_HEADER_MEMBERS):
            name = self._member_name()
            if name is None:
                break
            if name == "traceEvents":
                found = True
                self._expect("[")
                yield from self._list()
            else:
                self._header[name] = self._value()
        if not found:
            raise InputError("it has no traceEvents", got=", ".join(self._header)[:80], expected=WHOLE_FILE)

    def _member_name(self) -> str | None:
        sign = self._next()
        if sign == "}":
            return None
        if sign == ",":
            self._peek()
        else:
            self._at -= 1
        name = self._value()
        if not isinstance(name, str):
            raise InputError("a member of the outermost object has no name", got=repr(name)[:40])
        self._expect(":")
        return name

    def _list(self) -> Iterator[Event]:
        while True:
            self._at = BETWEEN.match(self._buffer, self._at).end()  # type: ignore[union-attr]
            if self._peek() == "]":
                self._at += 1
                return
            if self._buffer[self._at] == ",":
                self._at += 1
            event = self._value()
            if not isinstance(event, dict):
                raise InputError(f"event {self._done} is not an object", got=repr(event)[:40])
            self._done += 1
            yield event

    def _value(self) -> Any:
        """The value that begins at the next character that is no space."""
        self._peek()
        while True:
            try:
                value, end = self._decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                self._more(error)
                continue
            except RecursionError as error:
                raise InputError("it is nested too deeply", expected=WHOLE_FILE) from error
            if end == len(self._buffer) and not self._ended and not isinstance(value, (dict, list, str)):
                self._more(None)
                continue
            self._at = end
            return value

    def _more(self, error: json.JSONDecodeError | None) -> None:
        """Read on, as a value is not yet whole; refuse one that never will be."""
        held = len(self._buffer) - self._at
        if held > MAX_EVENT_CHARACTERS:
            raise InputError(f"one value after event {self._done} is too long", got=f"over {held} characters")
        if error is not None and error.pos < len(self._buffer) - 64 and not error.msg.startswith("Unterminated"):
            raise InputError(f"it is not JSON after event {self._done}", got=error, expected=WHOLE_FILE)
        if not self._read():
            raise InputError(f"it ends in the middle of a value, after {self._done} events", expected=WHOLE_FILE)

    def _peek(self) -> str:
        """The next character that is no space, not yet consumed."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in SPACE:
                self._at += 1
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._read():
                raise InputError(f"it ends after {self._done} events", expected=WHOLE_FILE)

    def _next(self) -> str:
        sign = self._peek()
        self._at += 1
        return sign

    def _expect(self, sign: str) -> None:
        got = self._next()
        if got != sign:
            raise InputError(f"it is not JSON after event {self._done}", got=repr(got), expected=f"{sign!r}")

    def _read(self) -> bool:
        piece = self._file.read(PIECE_CHARACTERS)
        self._buffer = self._buffer[self._at :] + piece
        self._at = 0
        self._ended = not piece
        return bool(piece)


def to_ns(microseconds: object) -> int:
    """Nanoseconds from microseconds as the file has them: an integer, or text with decimals.

    >>> to_ns("4654072739457.392"), to_ns(5), to_ns("1.5"), to_ns("1e3")
    (4654072739457392, 5000, 1500, 1000000)

    Raises
    ------
    InputError
        For anything but a finite number.
    """
    text = str(microseconds)
    try:
        if text[-4:-3] == ".":
            return int(text[:-4] + text[-3:])
        if isinstance(microseconds, int):
            return microseconds * 1000
    except ValueError:
        pass
    try:
        return round(float(text) * 1000)
    except (ValueError, OverflowError):
        raise InputError("a time is not a number", got=text[:40], expected="microseconds") from None

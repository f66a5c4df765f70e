"""Files of Chakra nodes: ``PREFIX.RANK.et``, written and read node by node.

Reading takes gzip too, as Chakra's own reader does. A length may not exceed :data:`MAX_MESSAGE_BYTES`, so that a
foreign file cannot ask for all memory.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from traces.chakra.schema import SCALARS, load_schema
from traces.errors import InputError

VERSION = "0.0.4"
MAX_MESSAGE_BYTES = 64 << 20
WHOLE_FILE = "a whole Chakra execution trace"
SINGLE = frozenset(f"{scalar}_val" for scalar in SCALARS)
NAME = re.compile(r"\.(\d+)\.et$")


def encode_nodes(nodes: Iterable[bytes], **metadata: str) -> Iterator[bytes]:
    """A file's bytes, piece by piece: the metadata, then each node.

    Parameters
    ----------
    nodes : each encoded.
    metadata : attributes of the file, texts.
    """
    schema = load_schema()
    header = schema.GlobalMetadata(version=VERSION)
    for name, value in metadata.items():
        header.attr.add(name=name, string_val=value)
    yield _delimited(header.SerializeToString())
    for node in nodes:
        yield _delimited(node)


def read_nodes(path: str | os.PathLike[str]) -> Iterator[Any]:
    """The nodes of a file, one after another.

    Raises
    ------
    InputError
        Where the file cannot be read, is truncated, or is something else.
    """
    schema = load_schema()
    try:
        with Path(path).open("rb") as raw:
            zipped = raw.peek(2)[:2] == b"\x1f\x8b"
            file: IO[bytes] = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if zipped else raw
            yield from _messages(file, schema)
    except InputError as error:
        raise InputError(f"cannot read Chakra trace {os.fspath(path)}: {error.message}") from error
    except FileNotFoundError as error:
        raise InputError(f"Chakra trace {os.fspath(path)} does not exist") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read Chakra trace {os.fspath(path)}", got=error, expected=WHOLE_FILE) from error


def find_rank_files(folder: str | os.PathLike[str]) -> list[Path]:
    """``*.0.et``, ``*.1.et``, ... of a folder, in order of their ranks.

    Raises
    ------
    InputError
        Where there are none, they are of several runs, or a rank is missing.
    """
    of: dict[int, Path] = {}
    for path in sorted(Path(folder).glob("*.et")):
        match = NAME.search(path.name)
        if match is None:
            continue
        rank = int(match.group(1))
        if rank in of:
            raise InputError(f"two Chakra traces are of rank {rank}", got=f"{of[rank].name} and {path.name}")
        of[rank] = path
    if not of:
        raise InputError(f"folder {os.fspath(folder)} holds no Chakra traces", expected="files NAME.RANK.et")
    if set(of) != set(range(len(of))):
        missing = min(set(range(max(of) + 1)) - set(of))
        raise InputError(f"Chakra trace of rank {missing} is missing", got=f"{len(of)} files up to rank {max(of)}")
    return [of[rank] for rank in range(len(of))]


def attributes(node: Any) -> dict[str, Any]:
    """Values of a node's attributes by name; lists are left out."""
    fields = ((attribute, attribute.WhichOneof("value")) for attribute in node.attr)
    return {each.name: getattr(each, field) for each, field in fields if field in SINGLE}


def _messages(file: IO[bytes], schema: Any) -> Iterator[Any]:
    first = True
    while (data := _next(file)) is not None:
        message = schema.GlobalMetadata() if first else schema.Node()
        try:
            message.ParseFromString(data)
        except Exception as error:  # protobuf's DecodeError, whichever implementation raises it
            if type(error).__name__ != "DecodeError":
                raise
            raise InputError("a message cannot be decoded", got=error, expected=WHOLE_FILE) from error
        if not first:
            yield message
        first = False
    if first:
        raise InputError("it is empty", expected=WHOLE_FILE)


def _next(file: IO[bytes]) -> bytes | None:
    """The next message; None at the end."""
    length = shift = 0
    while True:
        byte = file.read(1)
        if not byte:
            if shift:
                raise InputError("it ends within a length", expected=WHOLE_FILE)
            return None
        length |= (byte[0] & 0x7F) << shift
        shift += 7
        if not byte[0] & 0x80:
            break
        if shift > 28:
            raise InputError("a length is impossible", expected=WHOLE_FILE)
    if length > MAX_MESSAGE_BYTES:
        raise InputError("a message is too long", got=length, expected=f"at most {MAX_MESSAGE_BYTES} bytes")
    data = file.read(length)
    if len(data) < length:
        raise InputError("it ends within a message", expected=WHOLE_FILE)
    return data


def _delimited(data: bytes) -> bytes:
    length, prefix = len(data), bytearray()
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + data

"""Numbers as people write them, to SI base units and back. The only place where units are converted.

Lengths and counts take binary suffixes: ``128k`` = 131072 tokens, ``1M`` = 1048576. How times and sizes are shown is
`traces.display`'s.
"""

from __future__ import annotations

import re

from traces.errors import InputError

_BINARY = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_COUNT = re.compile(r"([0-9]+)(?:\.([0-9]+))?(?:([kmg])i?)?", re.IGNORECASE)

DTYPE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "fp64": 8, "int32": 4, "int64": 8}
DTYPE_BYTES |= {"packed-int8": 1, "packed-int4": 1, "packed-fp8": 1}
"""Of an element; a packed row (`cost_models.packing`) is one of bytes."""

MAX_COUNT = 2**63 - 1
"""Largest count, as NumPy's int64 holds it."""


def parse_count(text: str | int, what: str = "count") -> int:
    """Whole number with an optional binary suffix, exact up to `MAX_COUNT`.

    Raises
    ------
    InputError
        For what is no whole number, is negative or is larger than `MAX_COUNT`.

    >>> parse_count("128k"), parse_count("1M"), parse_count("1.5k")
    (131072, 1048576, 1536)
    """
    value = _read_digits(text, what) if isinstance(text, str) else text
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        expected = "digits with k, M or G (binary), as 128k or 1M"
        raise InputError(f"{what} is not a whole number", got=_excerpt(text), expected=expected)
    if value > MAX_COUNT:
        raise InputError(f"{what} is too large", got=_excerpt(text), expected="at most 2^63 - 1")
    return value


def _read_digits(text: str, what: str) -> int | None:
    match = _COUNT.fullmatch(text.strip())
    if not match:
        return None
    whole, decimals, suffix = match[1], match[2] or "", (match[3] or "").lower()
    if len(whole) + len(decimals) > 40:  # int() refuses thousands of digits with an error of its own
        raise InputError(f"{what} has too many digits", got=_excerpt(text), expected="at most 2^63 - 1")
    value, rest = divmod(int(whole + decimals) * _BINARY[suffix], 10 ** len(decimals))
    return None if rest else value


def _excerpt(value: object) -> str:
    """A value as a message shows it: a file of the wrong kind can be one word of megabytes."""
    text = repr(value)
    return text if len(text) <= 80 else text[:76] + " ..."


def dtype_bytes(dtype: str) -> int:
    """Bytes of one element.

    >>> dtype_bytes("bf16")
    2
    """
    try:
        return DTYPE_BYTES[dtype]
    except KeyError:
        raise InputError("unknown dtype", got=dtype, expected="one of " + ", ".join(DTYPE_BYTES)) from None


def format_count(count: int) -> str:
    """Tokens as people say them: ``128k``, ``1M``; other numbers with thousands separators.

    >>> format_count(131072), format_count(1048576), format_count(1000)
    ('128k', '1M', '1,000')
    """
    for suffix in "gmk":
        if count >= _BINARY[suffix] and count % _BINARY[suffix] == 0:
            return f"{count // _BINARY[suffix]:,}{suffix.upper() if suffix != 'k' else 'k'}"
    return f"{count:,}"

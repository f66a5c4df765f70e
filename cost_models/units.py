"""Numbers as people write them, to SI base units and back. The only place where units are converted.

Lengths and counts take binary suffixes (``128k`` = 131072 tokens, ``1M`` = 1048576); sizes and rates print with
binary prefixes for bytes of memory and decimal ones for rates, as the field does.
"""

from __future__ import annotations

import re

from traces.errors import InputError

_BINARY = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_COUNT = re.compile(r"^(\d+(?:\.\d+)?)([kmg]?)i?$", re.IGNORECASE)

DTYPE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "fp64": 8, "int32": 4, "int64": 8}


def parse_count(text: str | int, what: str = "count") -> int:
    """Whole number with an optional binary suffix.

    >>> parse_count("128k"), parse_count("1M"), parse_count("1.5k")
    (131072, 1048576, 1536)
    """
    if isinstance(text, int):
        return text
    match = _COUNT.match(text.strip())
    if match:
        value = float(match[1]) * _BINARY[match[2].lower()]
        if value == int(value):
            return int(value)
    raise InputError(
        f"{what} is not a whole number", got=repr(text), expected="digits with k, M or G (binary), as 128k or 1M"
    )


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


def format_time(seconds: float) -> str:
    """Seconds in the unit that leaves one to three digits before the point.

    >>> format_time(0.0123), format_time(2.5e-6), format_time(75.0)
    ('12.3 ms', '2.5 us', '75 s')
    """
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")):
        if abs(seconds) >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return "0 s"


def format_bytes(count: float) -> str:
    """Bytes with binary prefixes.

    >>> format_bytes(1536), format_bytes(80 * 2**30)
    ('1.5 KiB', '80 GiB')
    """
    for exponent, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if abs(count) >= 2**exponent:
            return f"{count / 2**exponent:.3g} {unit}"
    return f"{count:.0f} B"


def format_rate(bytes_per_s: float) -> str:
    """A rate in GB/s (10^9).

    >>> format_rate(48.5e9)
    '48.5 GB/s'
    """
    return f"{bytes_per_s / 1e9:.3g} GB/s"

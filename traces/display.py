"""Quantities as people read them: the unit follows the size, three significant digits.

Fields say their unit in their name (``time_s``, ``peak_memory_bytes``), which is how :func:`format_field` finds it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

TIME_UNITS = (("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1.0))
BYTE_UNITS = (("TiB", 2.0**40), ("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10), ("B", 1.0))
COUNT_UNITS = (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("", 1.0))

RATE_UNITS = ("GB", "MB", "TB", "Gb", "flop", "tflop")
RATES = {"gb_per_s": "bandwidth"}
NAMED_UNITS = ("_s", "_ns", "_bytes", "_gb_per_s", "_bytes_per_s")

MAX_LISTED = 8

Unit = tuple[str, float]


def time_unit(largest_ns: float) -> Unit:
    """Unit for an axis that reaches ``largest_ns`` nanoseconds, and its length in nanoseconds.

    >>> time_unit(2_500_000)
    ('ms', 1000000.0)
    """
    return _fitting(TIME_UNITS, largest_ns)


def byte_unit(largest_bytes: float) -> Unit:
    """Binary unit for an axis that reaches ``largest_bytes``, and its size in bytes.

    >>> byte_unit(3 << 30)
    ('GiB', 1073741824.0)
    """
    return _fitting(BYTE_UNITS, largest_bytes)


def format_ns(time_ns: float) -> str:
    """A time given in nanoseconds.

    >>> format_ns(1234567), format_ns(999), format_ns(0)
    ('1.23 ms', '999 ns', '0 ns')
    """
    return _scaled(time_ns, time_unit(time_ns))


def format_bytes(n_bytes: float) -> str:
    """A size given in bytes.

    >>> format_bytes(80 << 30), format_bytes(1000)
    ('80 GiB', '1000 B')
    """
    return _scaled(n_bytes, byte_unit(n_bytes))


def format_tokens(length: int) -> str:
    """A sequence length, binary where it is round.

    >>> format_tokens(131072), format_tokens(1048576), format_tokens(1000)
    ('128k', '1M', '1000')
    """
    for unit, size in (("M", 1 << 20), ("k", 1 << 10)):
        if length >= size and length % size == 0:
            return f"{length // size}{unit}"
    return str(length)


SPELLED = {
    "cpu": "CPU", "flop": "FLOP", "gpu": "GPU", "gpus": "GPUs", "hbm": "HBM", "kv": "KV", "nccl": "NCCL", "nic": "NIC",
    "nics": "NICs", "numa": "NUMA", "nvlink": "NVLink", "pcie": "PCIe", "usd": "USD",
}  # fmt: skip
"""Words of names that people write otherwise."""


def format_label(name: str) -> str:
    """A field's name as people read it beside a value of `format_field`, which has the unit.

    >>> format_label("exposed_communication_s"), format_label("uncertainty.low_s"), format_label("gpus_per_node")
    ('exposed communication', 'uncertainty, low', 'GPUs per node')
    """
    if name in RATES:
        return RATES[name]
    unit = max((unit for unit in NAMED_UNITS if name.endswith(unit)), key=len, default="")
    plain = name if name.endswith("_per_s") and not unit.endswith("_per_s") else name.removesuffix(unit)
    words = plain.replace(".", ", ").replace("_", " ").split()
    return " ".join(SPELLED.get(word, word) for word in words) or name


def format_part(name: str) -> str:
    """A part of the time (category, kind, phase) as people read it.

    >>> format_part("compute/attention_forward/forward")
    'compute, attention forward, forward'
    """
    return name.replace("_", " ").replace("/", ", ")


def format_field(name: str, value: object) -> str:
    """A field of a result, with the unit that its name says.

    >>> format_field("time_s", 0.00123), format_field("peak_memory_bytes", 1 << 31), format_field("fits", True)
    ('1.23 ms', '2 GiB', 'yes')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return _format_number(name, value)
    if isinstance(value, (list, tuple)):
        return _format_sequence(name, value)
    return "none" if value is None else str(value)


def _format_sequence(name: str, values: Sequence[object]) -> str:
    texts = [format_field(name, each) for each in values]
    if len(texts) > 1 and len(set(texts)) == 1:
        return f"{texts[0]} (each of {len(texts)})"
    numbers = [each for each in values if isinstance(each, (int, float))]
    if len(texts) > MAX_LISTED and len(numbers) == len(texts):
        return f"{format_field(name, min(numbers))} to {format_field(name, max(numbers))} ({len(texts)} values)"
    return ", ".join(texts)


def _format_number(name: str, value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    if name.endswith("_per_s"):
        return _format_rate(name.removesuffix("_per_s"), value)
    if name.endswith("_s"):
        return format_ns(value * 1e9)
    if name.endswith("_ns"):
        return format_ns(value)
    if "bytes" in name:
        return format_bytes(value)
    if isinstance(value, float) or abs(value) >= 10**9:
        return _scaled(value, _fitting(COUNT_UNITS, value)) if abs(value) >= 1e6 else f"{value:.4g}"
    return f"{value:,}"


def _format_rate(name: str, value: float) -> str:
    """What is done per second: bytes, decimal units that the name says, or things counted."""
    if name.endswith("bytes"):
        return f"{format_bytes(value)}/s"
    unit = next((unit for unit in RATE_UNITS if name.rpartition("_")[2] == unit.lower()), None)
    return f"{value:.4g} {unit}/s" if unit else f"{_format_number(name, value)}/s"


def _fitting(units: tuple[Unit, ...], largest: float) -> Unit:
    return next((unit for unit in units if abs(largest) >= unit[1]), units[-1])


def _scaled(value: float, unit: Unit) -> str:
    """Three significant digits, never an exponent: 1000 B and 999 ns stay as they are."""
    scaled = value / unit[1]
    digits = max(0, 2 - math.floor(math.log10(abs(scaled)))) if scaled else 0
    text = f"{scaled:.{min(digits, 3)}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {unit[0]}".rstrip()

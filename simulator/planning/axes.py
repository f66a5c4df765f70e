"""Lists and ranges of option values, as ``NAME=VALUE VALUE ...`` on the command line.

seq-len=64k..1M        64k, 128k, ..., 1M: each twice the one before
gpus=8..32:8           8, 16, 24, 32: in steps
schedule=ring burst:grad=fp32          a list; commas belong to the values
what-if=net=0.5 net=2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cost_models.units import parse_count
from simulator.request import SimulationRequest
from traces.errors import InputError

COUNTS = ("seq_len", "gpus", "nodes", "batch", "heads", "kv_heads", "head_dim", "tp", "dp", "pp", "zero", "tp_version",
          "microbatches", "loss_chunks")  # fmt: skip
MOST_VALUES = 1000


def parse_axes(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Values by option.

    Raises
    ------
    InputError
        For an unknown option, one named twice, or values that cannot be read.

    >>> parse_axes(["seq-len=64k..256k", "schedule=ring burst:grad=fp32"])
    {'seq_len': [65536, 131072, 262144], 'schedule': ['ring', 'burst:grad=fp32']}
    """
    axes: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        field = "pass_" if name == "pass" else name.strip().replace("-", "_")
        if not equals or field not in SimulationRequest.__dataclass_fields__ or not values.split():
            raise InputError("an axis is malformed", got=repr(text), expected="OPTION=VALUE VALUE ...")
        if field in axes:
            raise InputError(f"an axis is given twice: {name}", remedy="give all its values at once")
        axes[field] = [value for word in values.split() for value in _values(field, word)]
        if len(axes[field]) > MOST_VALUES:
            raise InputError(f"{name} has too many values", got=len(axes[field]), expected=f"at most {MOST_VALUES}")
    return axes


def _values(field: str, word: str) -> list[Any]:
    if field not in COUNTS:
        return [word]
    first, dots, rest = word.partition("..")
    if not dots:
        return [parse_count(word, field)]
    last, _, step = rest.partition(":")
    return _range(parse_count(first, field), parse_count(last, field), parse_count(step, field) if step else None, word)


def _range(first: int, last: int, step: int | None, word: str) -> list[int]:
    if not 0 < first <= last or step == 0:
        raise InputError("a range is malformed", got=repr(word), expected="FIRST..LAST or FIRST..LAST:STEP, rising")
    if step is not None:
        return list(range(first, min(last, first + step * MOST_VALUES) + 1, step))
    found = [first]
    while found[-1] * 2 <= last:
        found.append(found[-1] * 2)
    return found

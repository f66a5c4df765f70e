"""Masks by their contract names: ``causal``, ``sliding-window:window=4k,causal=true``, ``document:lengths=4k+8k+4k``.

A mask's options are the fields of its class; ``lengths`` is ``4k+8k+4k`` or ``@file``, a text file of lengths that
white space, commas or plus signs separate.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, fields
from typing import Any

from cost_models.masks.documents import (
    BlockCausalDocument,
    CausalBlockwise,
    Document,
    PrefixDocument,
    ShareQuestion,
)
from cost_models.masks.mask import Mask
from cost_models.masks.static import CausalMask, FullMask, GlobalSliding, PrefixCausal, SlidingWindow
from cost_models.spec import parse_bool, parse_spec
from cost_models.units import parse_count
from traces.errors import InputError

MASKS: dict[str, type[Mask]] = {
    mask.name: mask
    for mask in (
        FullMask,
        CausalMask,
        SlidingWindow,
        Document,
        ShareQuestion,
        CausalBlockwise,
        GlobalSliding,
        PrefixCausal,
        PrefixDocument,
        BlockCausalDocument,
    )
}
"""Every mask that has a name, by its name."""

MAX_LENGTHS_BYTES = 16 * 2**20
"""Largest file of document lengths."""


def parse_mask(text: str, seq_len: int | None = None) -> Mask:
    """Build a mask from its contract name.

    Parameters
    ----------
    text : ``NAME:key=value,...``.
    seq_len : sequence length that the mask is to fit (optional).

    Raises
    ------
    InputError
        For unknown names and options, missing or malformed values, and lengths that do not sum to ``seq_len``.

    >>> parse_mask("document:lengths=1k+3k,causal=true", 4096)
    Document(lengths=(1024, 3072), causal=True)
    >>> str(parse_mask("sliding-window:window=4096"))
    'sliding-window:window=4k'
    """
    spec = parse_spec(text, "mask")
    if spec.name not in MASKS:
        raise InputError("unknown mask", got=repr(spec.name), expected="one of " + ", ".join(MASKS))
    kind = MASKS[spec.name]
    options = {field.name.rstrip("_"): field for field in fields(kind)}
    spec.only(tuple(options))
    missing = [key for key, field in options.items() if field.default is MISSING and key not in spec.options]
    if missing:
        raise InputError(f"{spec.name} mask needs {missing[0]}=", got=repr(text), expected=_usage(kind))
    values = {options[key].name: _parse_value(options[key], value) for key, value in spec.options.items()}
    mask = kind(**values)
    if seq_len is not None:
        mask.validate(seq_len)
    return mask


def _usage(kind: type[Mask]) -> str:
    examples = {"bool": "true", "int": "N", "tuple[int, ...]": "4k+8k|@file"}
    options = [f"{field.name.rstrip('_')}={examples[str(field.type)]}" for field in fields(kind)]
    return f"{kind.name}:{','.join(options)}"


def _parse_value(field: Field[Any], text: str) -> bool | int | tuple[int, ...]:
    key = field.name.rstrip("_")
    if field.type == "bool":
        return parse_bool(text, key)
    if field.type == "int":
        return parse_count(text, key)
    words = _read_lengths(text[1:]) if text.startswith("@") else text.split("+")
    return tuple(parse_count(word, "document length") for word in words)


def _read_lengths(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_LENGTHS_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise InputError(f"cannot read document lengths from {path}", got=error.strerror or str(error)) from error
    except (UnicodeDecodeError, ValueError) as error:
        raise InputError(f"cannot read document lengths from {path!r}", expected="a text file") from error
    if len(data) > MAX_LENGTHS_BYTES:
        raise InputError(f"file of document lengths {path} is too large", expected=f"at most {MAX_LENGTHS_BYTES} bytes")
    words = re.split(r"[\s,+]+", text.strip())
    if words == [""]:
        raise InputError(f"file of document lengths {path} is empty", expected="lengths separated by white space")
    return words

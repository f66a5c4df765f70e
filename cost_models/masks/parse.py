"""Masks by their contract names: ``causal``, ``sliding-window:window=4k,causal=true``, ``document:lengths=4k+8k+4k``.

A mask's options are the fields of its class; ``lengths`` is ``4k+8k+4k`` or ``@file``, a text file of lengths that
white space, commas or plus signs separate. Instead of lengths, ``histogram=@file[,seed=0]`` draws them
(`cost_models.masks.histogram`): the mask's name then has the lengths drawn.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, replace
from typing import Any

from cost_models.masks.documents import (
    BlockCausalDocument,
    CausalBlockwise,
    Document,
    PrefixDocument,
    ShareQuestion,
)
from cost_models.masks.histogram import draw_lengths, parse_histogram
from cost_models.masks.mask import Mask, mask_options
from cost_models.masks.sparse import BlockSparse
from cost_models.masks.static import CausalMask, FullMask, GlobalSliding, PrefixCausal, SlidingWindow
from cost_models.spec import Spec, parse_bool, parse_spec
from cost_models.units import parse_count
from traces.bounded import read_bounded
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
        BlockSparse,
    )
}
"""Every mask that has a name, by its name."""

MAX_LENGTHS_BYTES = 2 * 2**20
"""Largest file of document lengths; a million documents fit."""


def parse_mask(text: str, seq_len: int | None = None) -> Mask:
    """Build a mask from its contract name.

    Parameters
    ----------
    text : ``NAME:key=value,...``.
    seq_len : sequence length that the mask is to fit (optional; a random mask needs it to say what is `allowed`).

    Raises
    ------
    InputError
        For unknown names and options, missing or malformed values, and lengths that do not sum to ``seq_len``.

    >>> parse_mask("document:lengths=1k+3k,causal=true", 4096)
    Document(lengths=(1024, 3072), causal=True)
    >>> str(parse_mask("sliding-window:window=4096"))
    'sliding-window:window=4k'
    """
    spec = _with_lengths(parse_spec(text, "mask"), seq_len)
    if spec.name not in MASKS:
        raise InputError("unknown mask", got=repr(spec.name), expected="one of " + ", ".join(MASKS))
    kind = MASKS[spec.name]
    options = mask_options(kind)
    spec.only(tuple(options))
    missing = [key for key, field in options.items() if field.default is MISSING and key not in spec.options]
    if missing:
        raise InputError(f"{spec.name} mask needs {missing[0]}=", got=repr(text), expected=_usage(kind))
    values = {options[key].name: _parse_value(options[key], value) for key, value in spec.options.items()}
    mask = kind(**values)
    if seq_len is None:
        return mask
    mask.validate(seq_len)
    return replace(mask, seq_len=seq_len) if isinstance(mask, BlockSparse) else mask


def _with_lengths(spec: Spec, seq_len: int | None) -> Spec:
    """The mask with the lengths that its histogram gives."""
    if "histogram" not in spec.options:
        return spec
    options = dict(spec.options)
    path, seed = options.pop("histogram"), parse_count(options.pop("seed", "0"), "seed")
    if "lengths" in options:
        raise InputError(f"{spec.name} mask has both lengths and a histogram", remedy="leave one out")
    if seq_len is None:
        raise InputError(f"{spec.name} mask draws its lengths for a sequence length", remedy="give seq_len")
    if not path.startswith("@"):
        raise InputError("histogram of document lengths is no file", got=path, expected="@file")
    drawn = draw_lengths(parse_histogram("\n".join(_read_lines(path[1:]))), seq_len, seed)
    return Spec(spec.name, {"lengths": "+".join(map(str, drawn)), **options})


def _usage(kind: type[Mask]) -> str:
    examples = {"bool": "true", "int": "N", "float": "0.2", "tuple[int, ...]": "4k+8k|@file"}
    options = [f"{key}={examples[str(field.type)]}" for key, field in mask_options(kind).items()]
    return f"{kind.name}:{','.join(options)}"


def _parse_value(field: Field[Any], text: str) -> bool | float | tuple[int, ...]:
    key = field.name.rstrip("_")
    if field.type == "bool":
        return parse_bool(text, key)
    if field.type == "int":
        return parse_count(text, key)
    if field.type == "float":
        return _parse_float(text, key)
    words = _read_lengths(text[1:]) if text.startswith("@") else text.split("+")
    return tuple(parse_count(word, "document length") for word in words)


def _parse_float(text: str, key: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{key} is not a number", got=repr(text)) from None


def _read_lengths(path: str) -> list[str]:
    words = re.split(r"[\s,+]+", _read_text(path).strip())
    if words == [""]:
        raise InputError(f"file of document lengths {path} is empty", expected="lengths separated by white space")
    return words


def _read_lines(path: str) -> list[str]:
    return _read_text(path).splitlines()


def _read_text(path: str) -> str:
    try:
        return read_bounded(path, f"file of document lengths {path!r}", MAX_LENGTHS_BYTES).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"file of document lengths {path!r} is not UTF-8", expected="a text file") from error

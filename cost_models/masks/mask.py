"""A mask says which keys each query may see.

It is given twice, independently: as a set of disjoint banded blocks, from which everything is computed (pairs, kernel
calls), and as a predicate `Mask.allowed`, the definition in the literature, against which tests compare the blocks.

    pairs(Q, K) = sum over blocks of |block with queries in Q and keys in K|,   additive over disjoint ranges
    attention FLOP = 4 head_dim heads batch pairs   forward, x 2.5 backward
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import Field, dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cost_models.masks.blocks import UNBOUNDED, Block, count_pairs
from cost_models.masks.counting import IntArray
from cost_models.masks.overlap import FEW, BlockTable
from cost_models.masks.tokens import TokenRange
from cost_models.spec import Spec
from cost_models.units import format_count
from traces.errors import InputError

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Mask(ABC):
    """Which (query, key) pairs attention computes. Subclasses are values: frozen, hashable, equal by content.

    Attributes
    ----------
    name : the contract's name; a subclass's fields are its options.
    translation_invariant : whether a pair is allowed by q - k alone, so that the mask is one block over the sequence.
    """

    name: ClassVar[str]
    translation_invariant: ClassVar[bool] = False

    @property
    def is_causal(self) -> bool:
        """Whether the options say that no query sees a later key."""
        return False

    @abstractmethod
    def blocks(self, seq_len: int) -> tuple[Block, ...]:
        """The allowed pairs of a sequence as disjoint blocks.

        Raises
        ------
        InputError
            Where the mask does not fit ``seq_len``.
        """

    @abstractmethod
    def allowed(self, q: IntArray, k: IntArray) -> BoolArray:
        """The definition: whether query tokens ``q`` see key tokens ``k``, broadcast together."""

    def validate(self, seq_len: int) -> None:
        """Refuse a sequence length that the mask does not fit."""
        if seq_len < 1:
            raise InputError("seq_len is too small", got=seq_len, expected="at least 1")
        if seq_len > UNBOUNDED:
            raise InputError("seq_len is too large", got=seq_len, expected=f"at most {UNBOUNDED}")

    def count_pairs(self, q_ranges: Sequence[TokenRange], k_ranges: Sequence[TokenRange], seq_len: int) -> int:
        """Allowed pairs with a query in ``q_ranges`` and a key in ``k_ranges``; exact, in closed form.

        Raises
        ------
        InputError
            Where the mask does not fit ``seq_len``.
        """
        table = self.block_table(seq_len)
        if len(table.blocks) * len(q_ranges) * len(k_ranges) <= FEW:
            return sum(count_pairs(block, q, k) for block in table.blocks for q in q_ranges for k in k_ranges)
        return table.count_pairs(q_ranges, k_ranges)

    def area(self, seq_len: int) -> int:
        """Allowed pairs of the whole sequence."""
        return self.block_table(seq_len).area

    def block_table(self, seq_len: int) -> BlockTable:
        """The blocks, indexed; built once per length."""
        if seq_len not in self._tables:
            self._tables[seq_len] = BlockTable(self.blocks(seq_len))
        return self._tables[seq_len]

    @cached_property
    def _tables(self) -> dict[int, BlockTable]:
        return {}

    @property
    def brief(self) -> str:
        """The name for messages and titles: as `str`, but not longer than a line."""
        return str(self)

    def __str__(self) -> str:
        values = {key: getattr(self, field.name) for key, field in mask_options(type(self)).items()}
        return str(Spec(self.name, {key: _text(value) for key, value in values.items() if value is not False}))


def mask_options(kind: type[Mask]) -> dict[str, Field[Any]]:
    """The options of a kind of mask, with the fields that hold them."""
    return {field.name.rstrip("_"): field for field in fields(kind) if field.metadata.get("option", True)}


def _text(value: bool | float | tuple[int, ...]) -> str:
    if isinstance(value, tuple):
        return "+".join(map(_text, value))
    if isinstance(value, float):
        return repr(value)
    return "true" if value is True else format_count(value).replace(",", "")


def require_positive(mask: Mask, **values: int) -> None:
    """Refuse options of a mask that are not at least 1."""
    for key, value in values.items():
        if value < 1:
            raise InputError(f"{mask.name} mask: {key} is too small", got=value, expected="at least 1")

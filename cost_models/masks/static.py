"""Masks over the whole sequence. S tokens, query q, key k; areas in pairs.

| mask | allowed | area |
|---|---|---|
| full | all | S^2 |
| causal | k <= q | S (S + 1) / 2 |
| sliding-window, causal | 0 <= q - k < w | S w - w (w - 1) / 2 |
| sliding-window | abs(q - k) < w | S (2 w - 1) - w (w - 1) |
| global-sliding | abs(q - k) < w or q < g or k < g | 2 g S - g^2 + n (2 w - 1) - w (w - 1), n = S - g |
| prefix-causal | k <= q or k < p | S (S + 1) / 2 + p (p - 1) / 2 |

for w <= S (w <= n). Source: LongCA-bench (arXiv 2510.17896) section 2.1 and its mask generators. Its window counts the
keys beside the query's own, ours the own one too: its w is our w - 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cost_models.masks.blocks import Block
from cost_models.masks.counting import IntArray
from cost_models.masks.mask import BoolArray, Mask, require_positive


@dataclass(frozen=True)
class FullMask(Mask):
    """Every query sees every key.

    >>> FullMask().area(8)
    64
    """

    name: ClassVar[str] = "full"
    translation_invariant: ClassVar[bool] = True

    def blocks(self, seq_len: int) -> tuple[Block, ...]:
        """One block without a band."""
        self.validate(seq_len)
        return (Block(0, seq_len, 0, seq_len),)

    def allowed(self, q: IntArray, k: IntArray) -> BoolArray:
        """All pairs."""
        return np.ones(np.broadcast(q, k).shape, dtype=np.bool_)


@dataclass(frozen=True)
class CausalMask(Mask):
    """Every query sees itself and all earlier keys.

    >>> CausalMask().area(8)
    36
    """

    name: ClassVar[str] = "causal"
    translation_invariant: ClassVar[bool] = True

    @property
    def is_causal(self) -> bool:
        """Always."""
        return True

    def blocks(self, seq_len: int) -> tuple[Block, ...]:
        """One block with ``q - k >= 0``."""
        self.validate(seq_len)
        return (Block(0, seq_len, 0, seq_len, lo=0),)

    def allowed(self, q: IntArray, k: IntArray) -> BoolArray:
        """``k <= q``."""
        return np.less_equal(k, q)


@dataclass(frozen=True)
class SlidingWindow(Mask):
    """A query sees itself and the ``window - 1`` keys before it; unless causal, as many after it.

    >>> SlidingWindow(2, causal=True).area(8), SlidingWindow(2).area(8)
    (15, 22)
    """

    name: ClassVar[str] = "sliding-window"
    translation_invariant: ClassVar[bool] = True
    window: int
    causal: bool = False

    def __post_init__(self) -> None:
        require_positive(self, window=self.window)

    @property
    def is_causal(self) -> bool:
        """As asked; a window of 1 is the diagonal."""
        return self.causal or self.window == 1

    def blocks(self, seq_len: int) -> tuple[Block, ...]:
        """One block with a band on both sides."""
        self.validate(seq_len)
        return (Block(0, seq_len, 0, seq_len, lo=0 if self.causal else 1 - self.window, hi=self.window - 1),)

    def allowed(self, q: IntArray, k: IntArray) -> BoolArray:
        """``abs(q - k) < window``, and ``k <= q`` if causal."""
        near = np.abs(np.subtract(q, k)) < self.window
        return np.asarray(near & np.less_equal(k, q) if self.causal else near)


@dataclass(frozen=True)
class GlobalSliding(Mask):
    """A window around every token, and ``global_`` first tokens that see, and are seen by, all.

    >>> GlobalSliding(window=2, global_=1).area(8)
    34
    """

    name: ClassVar[str] = "global-sliding"
    window: int
    global_: int

    def __post_init__(self) -> None:
        require_positive(self, window=self.window, **{"global": self.global_})

    def blocks(self, seq_len: int) -> tuple[Block, ...]:
        """The global rows, the global columns below them, and the band of the rest."""
        self.validate(seq_len)
        g, reach = min(self.global_, seq_len), self.window - 1
        blocks = Block(0, g, 0, seq_len), Block(g, seq_len, 0, g), Block(g, seq_len, g, seq_len, -reach, reach)
        return blocks if g < seq_len else blocks[:1]

    def allowed(self, q: IntArray, k: IntArray) -> BoolArray:
        """``abs(q - k) < window or q < global or k < global``."""
        near = np.abs(np.subtract(q, k)) < self.window
        return np.asarray(near | np.less(q, self.global_) | np.less(k, self.global_))


@dataclass(frozen=True)
class PrefixCausal(Mask):
    """Causal, but for a prefix that every query sees (a prefix language model).

    >>> PrefixCausal(3).area(8)
    39
    """

    name: ClassVar[str] = "prefix-causal"
    prefix: int

    def __post_init__(self) -> None:
        require_positive(self, prefix=self.prefix)

    def blocks(self, seq_len: int) -> tuple[Block, ...]:
        """The prefix's square, and the rows below it, causal."""
        self.validate(seq_len)
        return prefix_blocks(0, seq_len, self.prefix)

    def allowed(self, q: IntArray, k: IntArray) -> BoolArray:
        """``k <= q or k < prefix``."""
        return np.less_equal(k, q) | np.less(k, self.prefix)


def prefix_blocks(start: int, stop: int, prefix: int) -> tuple[Block, ...]:
    """A prefix mask of the tokens [start, stop).

    >>> prefix_blocks(4, 8, 9)
    (Block(q_start=4, q_stop=8, k_start=4, k_stop=8, lo=None, hi=None),)
    """
    edge = min(start + prefix, stop)
    square = Block(start, edge, start, edge)
    return (square, Block(edge, stop, start, stop, lo=0)) if edge < stop else (square,)

"""Masks over packed documents. Document i has L_i tokens, S = sum L_i; doc(t) is the document of token t.

| mask | allowed | area |
|---|---|---|
| document | doc(q) = doc(k) | sum L_i^2 |
| document, causal | same document and k <= q | sum L_i (L_i + 1) / 2 |
| share-question | k <= q and (doc(k) = 0 or same document) | sum L_i (L_i + 1) / 2 + L_0 (S - L_0) |
| causal-blockwise | k <= q and (doc(q) = last or same document) | sum L_i (L_i + 1) / 2 + L_last (S - L_last) |
| prefix-document | same document and (k <= q or k - start < p) | sum L (L + 1) / 2 + p (p - 1) / 2, or L^2 if L <= p |
| block-causal-document | same document and k < (floor(q / B) + 1) B | sum B^2 n (n + 1) / 2, documents of n blocks |

Source: LongCA-bench (arXiv 2510.17896) section 2.1 and its mask generators. Blocks of B are counted from the start of
the sequence, as its predicate does; in documents of whole blocks that is the document's start as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import ClassVar

import numpy as np

from cost_models.masks.blocks import Block
from cost_models.masks.counting import IntArray
from cost_models.masks.mask import BoolArray, Mask, require_positive
from cost_models.masks.static import prefix_blocks
from cost_models.units import format_count
from traces.errors import InputError

MOST_LISTED = 8
"""Documents that messages list one by one."""


@dataclass(frozen=True)
class DocumentMask(Mask):
    """A mask that depends on document boundaries.

    Parameters
    ----------
    lengths : tokens of each document, in order; they sum to the sequence length.
    """

    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        require_positive(self, **{"number of documents": len(self.lengths)})
        require_positive(self, **{"document length": min(self.lengths)})

    def validate(self, seq_len: int) -> None:
        """Refuse a sequence length that is not the sum of the document lengths."""
        super().validate(seq_len)
        if self.spans[-1][1] != seq_len:
            raise InputError(
                f"{self.name} mask: lengths do not sum to seq_len",
                got=f"{self.spans[-1][1]} tokens in {len(self.lengths)} documents",
                expected=f"{seq_len} ({format_count(seq_len)})",
                remedy="pad the last document or change seq_len",
            )

    @property
    def brief(self) -> str:
        """Many documents are counted, not listed.

        >>> Document((3,) * 100, causal=True).brief
        'document:lengths=(100 of 3 to 3),causal=true'
        """
        if len(self.lengths) <= MOST_LISTED:
            return str(self)
        listed = "+".join(format_count(length).replace(",", "") for length in self.lengths)
        summary = f"({len(self.lengths)} of {min(self.lengths)} to {max(self.lengths)})"
        return str(self).replace(listed, summary)

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """First token and end of each document."""
        return list(pairwise(accumulate(self.lengths, initial=0)))

    def document_of(self, tokens: IntArray) -> IntArray:
        """Index of the document that each token is in."""
        return np.searchsorted(np.cumsum(self.lengths), tokens, side="right")

    def _same_document(self, q: IntArray, k: IntArray) -> BoolArray:
        return np.asarray(np.equal(self.document_of(q), self.document_of(k)))


@dataclass(frozen=True)
class Document(DocumentMask):
    """A query sees its own document, all of it or causally.

    >>> Document((3, 5)).area(8), Document((3, 5), causal=True).area(8)
    (34, 21)
    """

    name: ClassVar[str] = "document"
    causal: bool = False

    @property
    def is_causal(self) -> bool:
        """As asked; documents of one token are the diagonal."""
        return self.causal or max(self.lengths) == 1

    def blocks(self, seq_len: int) -> tuple[Block, ...]:
        """One square per document."""
        self.validate(seq_len)
        return tuple(Block(a, b, a, b, lo=0 if self.causal else None) for a, b in self.spans)

    def allowed(self, q: IntArray, k: IntArray) -> BoolArray:
        """Same document, and ``k <= q`` if causal."""
        same = self._same_document(q, k)
        return np.asarray(same & np.less_equal(k, q) if self.causal else same)


@dataclass(frozen=True)
class ShareQuestion(DocumentMask):
    """Causal; document 0 is a question that every answer (document) sees, answers do not see each other.

    >>> ShareQuestion((3, 2, 3)).area(8)
    30
    """

    name: ClassVar[str] = "share-question"

    @property
    def is_causal(self) -> bool:
        """Always."""
        return True

    def blocks(self, seq_len: int) -> tuple[Block, ...]:
        """The question below itself, and one causal square per document."""
        self.validate(seq_len)
        question, own = self.lengths[0], tuple(Block(a, b, a, b, lo=0) for a, b in self.spans)
        return (*own, Block(question, seq_len, 0, question)) if question < seq_len else own

    def allowed(self, q: IntArray, k: IntArray) -> BoolArray:
        """``k <= q`` and (``k`` in the question, or same document)."""
        return np.less_equal(k, q) & (np.less(k, self.lengths[0]) | self._same_document(q, k))


@dataclass(frozen=True)
class CausalBlockwise(DocumentMask):
    """Causal within each document; the last one (the query after demonstrations) sees all before it.

    >>> CausalBlockwise((3, 2, 3)).area(8)
    30
    """

    name: ClassVar[str] = "causal-blockwise"

    @property
    def is_causal(self) -> bool:
        """Always."""
        return True

    def blocks(self, seq_len: int) -> tuple[Block, ...]:
        """One causal square per document, the last one extended to key 0."""
        self.validate(seq_len)
        first_keys = [a for a, _ in self.spans[:-1]] + [0]
        return tuple(Block(a, b, key, b, lo=0) for (a, b), key in zip(self.spans, first_keys, strict=True))

    def allowed(self, q: IntArray, k: IntArray) -> BoolArray:
        """``k <= q`` and (``q`` in the last document, or same document)."""
        in_last = np.greater_equal(q, self.spans[-1][0])
        return np.less_equal(k, q) & (in_last | self._same_document(q, k))


@dataclass(frozen=True)
class PrefixDocument(DocumentMask):
    """Each document is a prefix language model: causal, but all of it sees its first ``prefix`` tokens.

    >>> PrefixDocument((3, 5), prefix=3).area(8)
    27
    """

    name: ClassVar[str] = "prefix-document"
    prefix: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, prefix=self.prefix)

    def blocks(self, seq_len: int) -> tuple[Block, ...]:
        """Per document the prefix's square, and the rows below it, causal."""
        self.validate(seq_len)
        return tuple(block for a, b in self.spans for block in prefix_blocks(a, b, self.prefix))

    def allowed(self, q: IntArray, k: IntArray) -> BoolArray:
        """Same document and (``k <= q``, or ``k`` in the document's prefix)."""
        starts = np.array([a for a, _ in self.spans])
        in_prefix = np.subtract(k, starts[np.minimum(self.document_of(k), len(starts) - 1)]) < self.prefix
        return np.asarray(self._same_document(q, k) & (np.less_equal(k, q) | in_prefix))


@dataclass(frozen=True)
class BlockCausalDocument(DocumentMask):
    """A query sees its document up to the end of its own block of ``block`` tokens.

    >>> BlockCausalDocument((4, 4), block=2).area(8)
    24
    """

    name: ClassVar[str] = "block-causal-document"
    block: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, block=self.block)

    def blocks(self, seq_len: int) -> tuple[Block, ...]:
        """One full rectangle per document and block."""
        self.validate(seq_len)
        return tuple(block for start, stop in self.spans for block in self._steps(start, stop))

    def _steps(self, start: int, stop: int) -> list[Block]:
        edges = [start, *range((start // self.block + 1) * self.block, stop, self.block), stop]
        return [Block(a, b, start, b) for a, b in pairwise(edges)]

    def allowed(self, q: IntArray, k: IntArray) -> BoolArray:
        """Same document and ``k < (floor(q / block) + 1) * block``."""
        block_stop = (np.floor_divide(q, self.block) + 1) * self.block
        return np.asarray(np.less(k, block_stop) & self._same_document(q, k))

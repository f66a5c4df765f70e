"""Random masks and token ranges, and the slow and obvious ways to count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from cost_models.masks import (
    BlockCausalDocument,
    BlockSparse,
    CausalBlockwise,
    CausalMask,
    Document,
    FullMask,
    GlobalSliding,
    Lowering,
    Mask,
    PrefixCausal,
    PrefixDocument,
    ShareQuestion,
    SlidingWindow,
    TokenRange,
    gather_tokens,
)

Matrix = NDArray[np.int64]


@st.composite
def document_lengths(draw: st.DrawFn, seq_len: int, longest: int | None = None) -> tuple[int, ...]:
    """Lengths of at least 1 that sum to ``seq_len``."""
    lengths: list[int] = []
    while (rest := seq_len - sum(lengths)) > 0:
        lengths.append(draw(st.integers(1, min(rest, longest or rest))))
    return tuple(lengths)


def masks(seq_len: int) -> st.SearchStrategy[Mask]:
    """Every mask that has a name, with options also beyond the sequence."""
    size = st.integers(1, seq_len + 3)
    lengths = document_lengths(seq_len)
    tiles = st.builds(
        BlockSparse, size, st.floats(0.01, 1), st.integers(0, 99), st.booleans(), st.just(seq_len)
    )  # fmt: skip
    return st.one_of(
        st.builds(FullMask),
        st.builds(CausalMask),
        st.builds(SlidingWindow, size, st.booleans()),
        st.builds(Document, lengths, st.booleans()),
        st.builds(ShareQuestion, lengths),
        st.builds(CausalBlockwise, lengths),
        st.builds(GlobalSliding, size, size),
        st.builds(PrefixCausal, size),
        st.builds(PrefixDocument, lengths, size),
        st.builds(BlockCausalDocument, lengths, size),
        tiles,
    )


@st.composite
def masks_and_lengths(draw: st.DrawFn, longest: int = 40) -> tuple[Mask, int]:
    seq_len = draw(st.integers(1, longest))
    return draw(masks(seq_len)), seq_len


@st.composite
def disjoint_ranges(draw: st.DrawFn, seq_len: int, stride: int = 1) -> list[TokenRange]:
    """Ranges of one stride without a common token, in any order, some empty."""
    ranges = []
    for residue in range(stride):
        edges = sorted(draw(st.lists(st.integers(0, seq_len), max_size=5)))
        for start, stop in zip(edges, edges[1:], strict=False):
            first = start + (residue - start) % stride
            if draw(st.booleans()):
                ranges.append(TokenRange(first, stop, stride))
    return draw(st.permutations(ranges))


def allowed_matrix(mask: Mask, q: NDArray[np.int64], k: NDArray[np.int64]) -> Matrix:
    """1 where the definition allows a pair of these tokens."""
    return mask.allowed(q[:, None], k[None, :]).astype(np.int64)


def count_slowly(mask: Mask, q: Sequence[TokenRange], k: Sequence[TokenRange], seq_len: int) -> int:
    """Allowed pairs, one by one."""
    rows, columns = gather_tokens(q), gather_tokens(k)
    return int(allowed_matrix(mask, rows[rows < seq_len], columns[columns < seq_len]).sum())


def times_computed(lowering: Lowering, rows: int, columns: int) -> Matrix:
    """How often the kernel calls compute each local pair, by flash-attention's definition of a window."""
    times = np.zeros((rows, columns), dtype=np.int64)
    for call in lowering.calls:
        for s in call.segments:
            assert 0 <= s.q_start < s.q_stop <= rows
            assert 0 <= s.k_start < s.k_stop <= columns
            n_q, n_k = s.q_stop - s.q_start, s.k_stop - s.k_start
            i, j = np.arange(n_q)[:, None] + n_k - n_q, np.arange(n_k)[None, :]
            seen = np.ones((n_q, n_k), dtype=np.bool_)
            if call.left is not None:
                seen &= j >= i - call.left
            if call.right is not None:
                seen &= j <= i + call.right
            times[s.q_start : s.q_stop, s.k_start : s.k_stop] += seen
    return times

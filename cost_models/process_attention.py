"""What PyTorch's flash attention computes on a CPU, and what is done around it: features of a time that is their sum.

It goes by blocks of 32, 64 or 256 rows (by how many there are) and 512 keys. A block of forward is two products and an
exponential of its scores, of backward five; each product packs its operands anew, so that keys and values are read once
per block of rows. Whole rectangles of scores are computed, except for causal attention with as many keys as
queries, of which blocks beyond the diagonal are left out; every other window is a mask that is made for the rectangle
and added to every head's scores. Heads of keys and values are repeated for the queries of their group. Where several
launches of one step share rows (in backward, columns), their results are put together; a backward that is given delta
needs an output made for it.

| feature | of |
|---|---|
| calls | launches |
| FLOP | products of the scores that are computed |
| scores | exponentials |
| mask, masked | elements of masks that are made; scores to which they are added |
| repeated | bytes of K and V repeated for groups |
| blocks | blocks of scores |
| packed | bytes of K and V, once per block |
| moved | bytes of Q, K, V, O |
| together | bytes of results of launches that share rows |
| given | bytes of outputs made for a given delta |

Source: PyTorch aten/src/ATen/native/cpu/FlashAttentionKernel.cpp; `validators.executors.attending`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from cost_models.kernels import AttentionShape
from cost_models.masks import KernelCall, Segment

BLOCK_COLUMNS = 512
"""Keys of a block of PyTorch's kernel."""


class AttentionFeatures(NamedTuple):
    """The columns of the table above, of one step on one rank."""

    calls: float = 0.0
    flop: float = 0.0
    scores: float = 0.0
    mask: float = 0.0
    masked: float = 0.0
    repeated: float = 0.0
    blocks: float = 0.0
    packed: float = 0.0
    moved: float = 0.0
    together: float = 0.0
    given: float = 0.0


def attention_features(
    calls: Iterable[KernelCall], shape: AttentionShape, direction: str, *, given_delta: bool = False
) -> AttentionFeatures:
    """Features of the attention of one step.

    Parameters
    ----------
    given_delta : backward gets the rows' delta instead of O.

    >>> from cost_models.masks import Segment
    >>> shape = AttentionShape(1, 2, 2, 64, 64, "fp32")
    >>> attention_features([KernelCall((Segment(0, 8, 0, 4),), None, None)], shape, "forward")[:3]
    (1.0, 16384.0, 64.0)
    """
    launches = [(call, segment) for call in calls for segment in call.segments]
    width = (shape.head_dim + shape.v_head_dim) * shape.problems * shape.element_bytes
    scores = mask = blocks = packed = moved = rows_given = 0
    for call, segment in launches:
        rows, columns = _size(segment)
        computed, count, keys = _blocks(rows, columns, causal=_is_causal(call, segment))
        scores, blocks, packed = scores + computed, blocks + count, packed + keys
        full = call.left is None and call.right is None
        mask += 0 if full or _is_causal(call, segment) else rows * columns
        moved += rows + columns
        rows_given += rows if given_delta else 0
    columns_of_all = sum(_size(segment)[1] for _, segment in launches)
    return AttentionFeatures(
        calls=float(len(launches)),
        flop=float(scores * shape.problems * shape.flop_per_pair(direction)),
        scores=float(scores * shape.problems),
        mask=float(mask),
        masked=float(mask * shape.problems),
        repeated=float(columns_of_all * width) if shape.heads > shape.kv_heads else 0.0,
        blocks=float(blocks * shape.problems),
        packed=float(packed * width),
        moved=float(moved * width),
        together=_put_together([segment for _, segment in launches], shape, direction),
        given=float(rows_given * width) / 2,
    )


def _size(segment: Segment) -> tuple[int, int]:
    return segment.q_stop - segment.q_start, segment.k_stop - segment.k_start


def _is_causal(call: KernelCall, segment: Segment) -> bool:
    """Whether the kernel knows the window and leaves blocks out."""
    rows, columns = _size(segment)
    return call.left is None and call.right == 0 and rows == columns


def _blocks(rows: int, columns: int, *, causal: bool) -> tuple[int, int, int]:
    """Scores of one head that are computed, blocks of them, and keys of all blocks.

    >>> _blocks(256, 1024, causal=False), _blocks(1024, 1024, causal=True), _blocks(256, 256, causal=True)
    ((262144, 8, 4096), (786432, 6, 3072), (65536, 4, 1024))
    """
    height, computed, blocks, keys = _block_rows(rows), 0, 0, 0
    for first in range(0, rows, height):
        seen = min(first + height, columns) if causal else columns
        visited = -(-seen // BLOCK_COLUMNS)
        read = min(visited * BLOCK_COLUMNS, columns)
        computed += min(height, rows - first) * read
        blocks, keys = blocks + visited, keys + read
    return computed, blocks, keys


def _block_rows(rows: int) -> int:
    """Rows of a block of PyTorch's kernel."""
    return 256 if rows >= 768 else 64 if rows >= 192 else 32


def _put_together(segments: Sequence[Segment], shape: AttentionShape, direction: str) -> float:
    """Bytes of the results of launches that share rows: O of forward; dQ, and dK and dV, of backward."""
    queries = [(each.q_start, each.q_stop) for each in segments]
    keys = [(each.k_start, each.k_stop) for each in segments]
    element = shape.element_bytes * shape.batch
    of_queries = _shared(queries) * shape.heads * element
    if direction == "forward":
        return float(of_queries * shape.v_head_dim)
    of_keys = _shared(keys) * shape.kv_heads * element
    return float(of_queries * shape.head_dim + of_keys * (shape.head_dim + shape.v_head_dim))


def _shared(ranges: Sequence[tuple[int, int]]) -> int:
    """Rows of all ranges where any two have one in common, else none.

    >>> _shared([(0, 4), (4, 8)]), _shared([(0, 4), (2, 8)])
    (0, 10)
    """
    if not any(after[0] < before[1] for before, after in pairwise(sorted(ranges))):
        return 0
    return sum(stop - start for start, stop in ranges)

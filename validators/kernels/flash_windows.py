"""Windows that flash-attention 2 can be told, and the parts of those that it cannot.

Its interface drops a right bound that is not below the number of keys, and gives a window with a left bound only the
right bound n_k; both change nothing as long as there are no more queries than keys. With more queries (a step whose
keys are fewer, as half of a zigzag ring's are) a bound of n_k or more can still cut, and then it is split by rows:

    right >= n_k cuts        rows before n_q - 1 - right are causal on all keys but the last; the rest see all to the right
    left only, n_q - 1 > n_k  rows before n_q - 1 - n_k see all keys; the rest as they were

Found by loopback checks on an H100 (docs/validation/h100-loopback.jsonl: 40 of 285 checks with flash2, all of them and
no others with such windows). Source: Dao-AILab/flash-attention csrc/flash_attn/flash_api.cpp (mha_fwd), as in PyTorch.
"""  # noqa: E501

from __future__ import annotations

from typing import NamedTuple


class Part(NamedTuple):
    """Rows and columns of a segment, and a window at the bottom right corner of that part; None is unbounded."""

    rows: slice
    columns: slice
    left: int | None
    right: int | None


def split_window(rows: int, columns: int, left: int | None, right: int | None) -> list[Part]:
    """Parts with disjoint rows that together are one window of ``rows`` queries on ``columns`` keys.

    >>> split_window(6, 2, None, 3)[0]
    Part(rows=slice(0, 2, None), columns=slice(0, 1, None), left=None, right=0)
    """
    left = left if left is not None and left < columns - 1 else None
    right = right if right is not None and right < rows - 1 else None
    everything = slice(0, columns)
    if right is not None and right >= columns:
        first = rows - 1 - right
        upper = Part(slice(0, first), slice(0, columns - 1), None if left is None else left + right, 0)
        return [upper, *_below(first, split_window(rows - first, columns, left, None))]
    if right is None and left is not None and rows - 1 > columns:
        first = rows - 1 - columns
        return [Part(slice(0, first), everything, None, None), Part(slice(first, rows), everything, left, None)]
    return [Part(slice(0, rows), everything, left, right)]


def _below(first: int, parts: list[Part]) -> list[Part]:
    return [part._replace(rows=slice(part.rows.start + first, part.rows.stop + first)) for part in parts]

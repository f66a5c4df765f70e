"""Several segments of a batch as one variable-length problem, in flash-attention's terms.

Rows of all batch rows lie one after the other, [B n, H, D]; sequence s has rows cu_q[s] <= i < cu_q[s + 1] and columns
cu_k[s] <= j < cu_k[s + 1]. Rows (columns) that no segment has become sequences without columns (rows), so that nothing
is copied. Rows of theirs, and gradients of columns of theirs, hold anything.

The window is that of every sequence; the kernel takes the longest sequence for the bounds that it rounds away, so that
a call is told so only where no segment has too many rows for that (`flash_windows`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from cost_models.masks import KernelCall


class Sequences(NamedTuple):
    """Where sequences begin in the rows and the columns of all batch rows, int32, and the longest of the segments."""

    rows: Tensor
    columns: Tensor
    most_rows: int
    most_columns: int


@lru_cache(maxsize=4096)
def list_sequences(call: KernelCall, batch: int, rows: int, columns: int, device: torch.device) -> Sequences:
    """Sequences of a launch whose segments follow each other in rows and in columns.

    >>> from cost_models.masks import Segment
    >>> call = KernelCall((Segment(2, 4, 0, 3), Segment(4, 6, 5, 8)), None, 0)
    >>> found = list_sequences(call, 1, 6, 8, torch.device("cpu"))
    >>> found.rows.tolist(), found.columns.tolist()
    ([0, 2, 4, 4, 6], [0, 0, 3, 5, 8])
    """
    row_edges, column_edges = [0], [0]
    for first_row, first_column in ((each * rows, each * columns) for each in range(batch)):
        ends = [(s.q_start, s.k_start, s.q_stop, s.k_stop) for s in call.segments]
        for q_start, k_start, q_stop, k_stop in (*ends, (rows, columns, rows, columns)):
            for q_edge, k_edge in (
                (q_start, column_edges[-1] - first_column),  # rows of no segment
                (q_start, k_start),  # columns of none
                (q_stop, k_stop),
            ):
                if (first_row + q_edge, first_column + k_edge) != (row_edges[-1], column_edges[-1]):
                    row_edges.append(first_row + q_edge)
                    column_edges.append(first_column + k_edge)
    return Sequences(
        torch.tensor(row_edges, dtype=torch.int32, device=device),
        torch.tensor(column_edges, dtype=torch.int32, device=device),
        max(s.q_stop - s.q_start for s in call.segments),
        max(s.k_stop - s.k_start for s in call.segments),
    )


def window_is_kept(call: KernelCall) -> bool:
    """Whether flash-attention's interface changes nothing in the window of any segment.

    >>> from cost_models.masks import Segment
    >>> window_is_kept(KernelCall((Segment(0, 9, 0, 4), Segment(9, 12, 4, 7)), None, 5))
    False
    """
    most_columns = max(s.k_stop - s.k_start for s in call.segments)
    most_rows = max(s.q_stop - s.q_start for s in call.segments)
    if call.right is not None and most_columns <= call.right < most_rows - 1:
        return False
    return call.left is None or call.right is not None or most_rows - 1 <= most_columns


def flatten(tensor: Tensor) -> Tensor:
    """[B, n, H, D] as [B n, H, D]: a view where batch rows follow each other."""
    return tensor.flatten(0, 1)


def unflatten(tensor: Tensor, batch: int) -> Tensor:
    """[B n, H, D] as [B, n, H, D]."""
    return tensor.unflatten(0, (batch, -1))


def flatten_lse(lse: Tensor) -> Tensor:
    """[B, H, n] as [H, B n], contiguous."""
    return lse.transpose(0, 1).flatten(1, 2).contiguous()


def unflatten_lse(lse: Tensor, batch: int) -> Tensor:
    """[H, B n] as [B, H, n]."""
    return lse.unflatten(1, (batch, -1)).transpose(0, 1)

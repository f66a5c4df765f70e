"""Tables of work for the kernels of `triton_attention`: a line per tile of rows or columns of a launch's segments."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cost_models.masks import KernelCall, Segment

FAR = 2**30
"""Distance that bounds nothing: sequences are shorter, and sums with positions still fit 32 bits."""

IntArray = NDArray[np.int64]


@lru_cache(maxsize=4096)
def row_table(call: KernelCall, tile: int, other_tile: int, device: torch.device) -> Tensor:
    """Tiles of rows and the columns that each visits, [lines, 10] int32, longest first."""
    lines = [_tiles(s.q_start, s.q_stop, s.k_start, s.k_stop, *_band(s, call), tile, other_tile) for s in call.segments]
    return _table(lines, device)


@lru_cache(maxsize=4096)
def column_table(call: KernelCall, tile: int, other_tile: int, device: torch.device) -> Tensor:
    """Tiles of columns and the rows that each visits; low and high stay of columns minus rows."""
    lines = []
    for segment in call.segments:
        low, high = _band(segment, call)
        tiles = _tiles(segment.k_start, segment.k_stop, segment.q_start, segment.q_stop, -high, -low, tile, other_tile)
        tiles[:, 8], tiles[:, 9] = low, high
        lines.append(tiles)
    return _table(lines, device)


def _band(segment: Segment, call: KernelCall) -> tuple[int, int]:
    """Bounds of column minus row, on positions in the tensors: aligned at the bottom right corner of the segment."""
    corner = segment.k_stop - segment.q_stop
    return (
        -FAR if call.left is None else max(corner - call.left, -FAR),
        FAR if call.right is None else min(corner + call.right, FAR),
    )


def _tiles(
    start: int, stop: int, other_start: int, other_stop: int, low: int, high: int, tile: int, other_tile: int
) -> IntArray:
    """Lines of one segment: ``low <= other - own <= high``."""
    first = np.arange(start, stop, tile, dtype=np.int64)
    last = np.minimum(first + tile, stop) - 1
    begin = np.clip(first + low, other_start, other_stop)
    begin = other_start + (begin - other_start) // other_tile * other_tile
    end = np.maximum(np.clip(last + high + 1, other_start, other_stop), begin)
    inner_begin = other_start - (other_start - np.maximum(last + low, other_start)) // other_tile * other_tile
    inner_end = other_start + (np.minimum(first + high + 1, other_stop) - other_start) // other_tile * other_tile
    none = (inner_begin >= inner_end) | (inner_begin >= end)
    inner_begin, inner_end = np.where(none, begin, inner_begin), np.where(none, begin, inner_end)
    same = [np.full_like(first, value) for value in (stop, other_start, other_stop, low, high)]
    return np.stack([first, same[0], same[1], same[2], begin, end, inner_begin, inner_end, same[3], same[4]], axis=1)


def _table(lines: list[IntArray], device: torch.device) -> Tensor:
    table = np.concatenate(lines)
    longest_first = np.argsort(table[:, 4] - table[:, 5], kind="stable")
    return torch.from_numpy(table[longest_first].astype(np.int32)).to(device)

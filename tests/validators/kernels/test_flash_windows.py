"""Windows as flash-attention 2 understands them: emulated, and equal to what was asked in every small case."""

from __future__ import annotations

from itertools import product

import torch

from cost_models.masks import KernelCall, Segment
from validators.kernels.dense import window
from validators.kernels.flash_windows import split_window


def flash2_sees(rows: int, columns: int, left: int | None, right: int | None) -> torch.Tensor:
    """What the interface makes of a window: bounds of n_k or more are dropped, a missing one beside another is n_k."""
    lefts, rights = -1 if left is None else left, -1 if right is None else right
    lefts, rights = -1 if lefts >= columns else lefts, -1 if rights >= columns else rights
    if lefts < 0 <= rights:
        lefts = columns
    elif rights < 0 <= lefts:
        rights = columns
    call = KernelCall((Segment(0, rows, 0, columns),), None if lefts < 0 else lefts, None if rights < 0 else rights)
    return window(call, rows, columns)


def test_parts_see_what_the_window_sees() -> None:
    split = garbled = 0
    for rows, columns in product(range(1, 13), range(1, 7)):
        for left, right in product([None, *range(13)], [None, *range(13)]):
            call = KernelCall((Segment(0, rows, 0, columns),), left, right)
            wanted = window(call, rows, columns)
            if not bool(wanted.any(dim=1).all()):
                continue  # segments are tight: every row sees a key
            parts, seen = split_window(rows, columns, left, right), torch.zeros_like(wanted)
            for part in parts:
                n, m = part.rows.stop - part.rows.start, part.columns.stop - part.columns.start
                seen[part.rows, part.columns] |= flash2_sees(n, m, part.left, part.right)
            assert bool((seen == wanted).all()), (rows, columns, left, right)
            assert [part.rows.start for part in parts[1:]] == [part.rows.stop for part in parts[:-1]]
            split += len(parts) > 1
            garbled += bool((flash2_sees(rows, columns, left, right) != wanted).any())
    assert min(split, garbled) > 100

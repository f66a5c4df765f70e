"""From a mask to kernel calls: what one rank launches for the pairs it computes in one step.

A rank holds query ranges and key ranges; position in their concatenation is the *local* row and column. Every (block
of the mask, query range, key range) that share pairs gives a banded rectangle of local positions (`cells`), cells
whose union is one are merged, and the rest packed into few launches (`launches`). So a zigzag ring's own block becomes
one causal call, a lower rank's keys one full call on half the columns, packed documents one varlen call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cost_models.masks.cells import Cell, merge_cells
from cost_models.masks.launches import KernelCall, pack_cells
from cost_models.masks.mask import Mask
from cost_models.masks.tokens import TokenRange, join_ranges

MAX_LAUNCHES = 64
"""Launches beyond which flash kernels stop being a sensible way: about a millisecond of launch and merge overhead."""


@dataclass(frozen=True, slots=True)
class Lowering:
    """Kernel calls on local rows and columns that compute the allowed pairs, each exactly once.

    Attributes
    ----------
    calls : launches; none where there is nothing to compute.
    pairs : number of (query, key) pairs.
    exact_kernel : False where more than `MAX_LAUNCHES` launches would be needed, so that one kernel for general masks
        (Flex, Triton) should be used instead.
    """

    calls: tuple[KernelCall, ...]
    pairs: int
    exact_kernel: bool


def lower(mask: Mask, q_ranges: Sequence[TokenRange], k_ranges: Sequence[TokenRange], seq_len: int) -> Lowering:
    """Kernel calls for the pairs between some queries and some keys.

    Parameters
    ----------
    q_ranges, k_ranges : tokens in memory order; ranges of one stride where the mask has a band between them.
    seq_len : length of the whole sequence.

    Raises
    ------
    InputError
        Where the mask does not fit ``seq_len``, or query and key strides differ.

    >>> from cost_models.masks.static import CausalMask
    >>> rank_1_of_2 = [TokenRange(4, 8), TokenRange(8, 12)]  # zigzag
    >>> rank_0_of_2 = [TokenRange(0, 4), TokenRange(12, 16)]
    >>> lower(CausalMask(), rank_1_of_2, rank_0_of_2, 16).calls
    (KernelCall(segments=(Segment(q_start=0, q_stop=8, k_start=0, k_stop=4),), left=None, right=None),)
    """
    return lower_joined(mask, join_ranges(q_ranges), join_ranges(k_ranges), seq_len)


def lower_joined(mask: Mask, q_ranges: list[TokenRange], k_ranges: list[TokenRange], seq_len: int) -> Lowering:
    """`lower` for ranges that `join_ranges` has been over: no two of them are neighbours."""
    cells = mask.block_table(seq_len).cells(q_ranges, k_ranges)
    calls = _pack_fewest(cells)
    return Lowering(calls, sum(cell.pairs for cell in cells), len(calls) <= MAX_LAUNCHES)


def _pack_fewest(cells: list[Cell]) -> tuple[KernelCall, ...]:
    """Merged cells where that saves launches or segments; merging can also break windows that were alike."""
    merged = merge_cells(cells)
    calls = pack_cells(merged)
    if len(calls) <= 1 or len(merged) == len(cells):
        return calls
    return min(calls, pack_cells(cells), key=len)

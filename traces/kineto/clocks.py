"""Bring the clocks of several ranks together, by the communication that they took part in.

For a communication that ranks r and s both ran, in their own clocks with offsets o added,

    o_r + end_r ~ o_s + end_s          a collective, or an exchange, ends nearly at once on all its ranks
    o_r + end_r >= o_s + start_s       it cannot end anywhere before it has begun everywhere

The offset of a pair is the median of end_s - end_r over what they share, brought within the bounds of the second line
where these do not contradict each other; pairs are chained from the lowest rank of each connected group. Ranks of one
host share a clock: where an offset of 0 keeps to all bounds, and the host's name is the same, it stays 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
ENOUGH = 3
"""Shared communications from which a median is trusted more than a bound."""


class Span(NamedTuple):
    """When a rank ran a communication, on its own clock."""

    start_ns: int
    end_ns: int


class Clocks(NamedTuple):
    """Offsets to add to each rank's times, and what is doubtful about them."""

    offset_ns: IntArray
    warnings: tuple[str, ...]


def align_clocks(shared: Sequence[Mapping[object, Span]], hosts: Sequence[str]) -> Clocks:
    """Offsets that fit the communication of all ranks.

    Parameters
    ----------
    shared : for each rank, its communications by a name that all their ranks give them.
    hosts : for each rank, its host's name; "" where unknown.
    """
    n = len(shared)
    offset, warnings = np.zeros(n, dtype=np.int64), []
    placed: set[int] = set()
    for root in range(n):
        if root in placed:
            continue
        if root:
            warnings.append(f"rank {root} shares no communication with those before it: its clock is taken as it is")
        placed.add(root)
        queue = [root]
        while queue:
            near = queue.pop(0)
            for rank in range(n):
                one_clock = hosts[near] == hosts[rank] != ""
                found = None if rank in placed else _pair_offset(shared[near], shared[rank], one_clock=one_clock)
                if found is None:
                    continue
                offset[rank] = offset[near] + found.offset_ns
                if found.contradiction_ns:
                    warnings.append(
                        f"clocks of ranks {near} and {rank} drift: no offset fits all their communication, "
                        f"by {found.contradiction_ns} ns"
                    )
                placed.add(rank)
                queue.append(rank)
    return Clocks(offset, tuple(warnings))


class _Pair(NamedTuple):
    offset_ns: int
    contradiction_ns: int


def _pair_offset(near: Mapping[object, Span], far: Mapping[object, Span], *, one_clock: bool) -> _Pair | None:
    """What to add to the far rank's clock; None where the two share nothing."""
    names = near.keys() & far.keys()
    if not names:
        return None
    a, b = (np.array([each[name] for name in names], dtype=np.int64) for each in (near, far))
    low, high = int((a[:, 0] - b[:, 1]).max()), int((a[:, 1] - b[:, 0]).min())
    if one_clock and low <= 0 <= high:
        return _Pair(0, 0)
    middle = int(np.median(a[:, 1] - b[:, 1]))
    if low > high:
        return _Pair(middle if len(names) >= ENOUGH else (low + high) // 2, low - high)
    return _Pair(min(max(middle, low), high), 0)

"""How long a grid of thread blocks takes on a GPU's multiprocessors.

Blocks that come in order of position are taken as waves of blocks of like length: N slots take the N longest, then the
next N, and each wave lasts as long as its longest,

    makespan = sum over waves w of d[w N],   d sorted from the longest.

That is exact where all blocks are equal (full attention: the last, partly filled wave costs a whole one), and about
half a longest block above the mean load where lengths spread evenly (causal), which is what list scheduling in an
order that ignores lengths leaves. A persistent kernel that hands out the longest first reaches the bounds of list
scheduling (Graham 1969) nearly: max(mean load, longest block, whole waves of the shortest).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def makespan_s(durations_s: NDArray[np.floating], copies: int, slots: int, longest_first: bool) -> float:
    """Time until the last block ends.

    Parameters
    ----------
    durations_s : of the distinct blocks, positive.
    copies : how often each occurs (heads times batch).
    slots : blocks that run at once.

    >>> durations = np.array([1.0, 2.0, 3.0])
    >>> makespan_s(durations, 2, 2, longest_first=False), makespan_s(durations, 2, 4, longest_first=True)
    (6.0, 3.0)
    """
    if len(durations_s) == 0:
        return 0.0
    ordered = np.sort(durations_s)[::-1]
    blocks = len(ordered) * copies
    waves = -(-blocks // slots)
    if longest_first:
        return float(max(ordered.sum() * copies / slots, ordered[0], waves * ordered[-1]))
    return float(ordered[np.arange(waves) * slots // copies].sum())

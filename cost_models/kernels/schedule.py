"""How long a grid of thread blocks takes on a GPU's multiprocessors.

Blocks that come in order of position are taken as waves of blocks of like length: N slots take the N longest, then the
next N, and each wave lasts as long as its longest,

    makespan = sum over waves w of d[w N],   d sorted from the longest.

This is a good guess where the order of dispatch is not known. It is exact where all blocks are equal (full attention:
the last, partly filled wave costs a whole one), and about half a longest block above the mean load where lengths spread
evenly (causal), which is what list scheduling in an order that ignores lengths leaves. A persistent kernel that hands
out the longest first reaches the bounds of list scheduling (Graham 1969) nearly: max(mean load, longest block, whole
waves of the shortest).

Where it is known that blocks are dispatched in order (`dispatch_in_order`), that is simulated: the first ones go to the
multiprocessors in turn, every later one to the place that is free first. Blocks that share a multiprocessor share its
rate; j of them keep it busy for a larger part of the time than one alone,

    rate(j) = (1 - (1 - a)^j) / (1 - (1 - a)^b),     a: part of the time for which one block keeps it busy,  b: the most

The oldest of them has the larger part of it, since warp schedulers prefer older warps. So they end one after the other,
and the blocks of a last, partly filled wave go to different multiprocessors: 384 blocks in 2 x 132 places take 1.6
times as long as 264, not twice (measured on an H100; in two of five calls twice all the same).

Of many blocks, only the last are simulated: those before them keep all places busy.
"""

from __future__ import annotations

from functools import lru_cache
from heapq import heapify, heappop, heapreplace
from operator import truediv
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CLUSTERS = 8
"""Graphics processing clusters of a large GPU; multiprocessors come in pairs, spread over them."""
JITTER, GOLDEN = 0.03, 0.6180339887498949
"""Width in which durations of blocks that share multiprocessors vary, evenly."""
ELDEST = 0.6
"""Part of a shared multiprocessor's rate that its oldest block has (0.55 was tried, too: worse on an H100)."""
SIMULATED_WAVES = 12
"""Blocks per place that are simulated; what all of them together leave unbalanced is in the last."""


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


class Dispatch(NamedTuple):
    """How blocks were spread, seen from the multiprocessor that finishes last.

    Attributes
    ----------
    makespan_s : time until it does.
    pieces : how often each of the distinct blocks ran on it, of those simulated.
    skipped : how often each ran on it on average before.
    shares : parts of its simulated work that were done with 1, 2, ... blocks resident; one together, but for the
        variation of durations.
    """

    makespan_s: float
    pieces: NDArray[np.float64]
    skipped: NDArray[np.float64]
    shares: NDArray[np.float64]


def rate_with(residents: int, most: int, alone: float) -> float:
    """Share of a multiprocessor's rate that so many blocks reach together, of what ``most`` do.

    >>> rate_with(1, 2, 1.0), rate_with(2, 2, 0.5), round(rate_with(1, 2, 0.5), 3)
    (1.0, 1.0, 0.667)
    """
    return float((1 - (1 - alone) ** residents) / (1 - (1 - alone) ** most))


def dispatch_in_order(
    durations_s: NDArray[np.float64], copies: int, sm_count: int, most: int, alone: float = 1.0
) -> Dispatch:
    """Blocks dispatched in order of position, one copy of all after the other.

    Parameters
    ----------
    durations_s : of the distinct blocks, if a multiprocessor did nothing else and ``most`` of them shared it.
    copies : how often all occur (heads times batch).
    sm_count, most : multiprocessors, and blocks that one takes.
    alone : part of the time for which one block keeps a multiprocessor busy.

    >>> durations = np.array([1.0, 2.0, 3.0])
    >>> dispatch_in_order(durations, 2, 2, 1).makespan_s
    7.0
    >>> 3.3 < dispatch_in_order(durations[:1], 5, 2, 2, 0.5).makespan_s < 3.6
    True
    """
    distinct, total = len(durations_s), len(durations_s) * copies
    first = _first_simulated(total, sm_count * most)
    skipped = _before(first, distinct) / sm_count
    order = (first + np.arange(total - first)) % distinct
    rates = [rate_with(residents, most, alone) for residents in range(1, most + 1)]
    uneven = 1 + JITTER * (np.arange(len(order)) * GOLDEN % 1 - 0.5) if most > 1 else 1.0
    work = (durations_s[order] * uneven).tolist()
    end, last, shared = _spread_alone(work, sm_count) if most == 1 else _spread_shared(work, sm_count, rates)
    pieces = np.bincount(order[last], minlength=distinct).astype(np.float64)
    done = float(pieces @ durations_s)
    return Dispatch(float(skipped @ durations_s) + end, pieces, skipped, np.array(shared) / done)


def makespan_in_order_s(
    durations_s: NDArray[np.float64], copies: int, sm_count: int, most: int, alone: float = 1.0
) -> float:
    """The makespan of :func:`dispatch_in_order` alone, for which it does not matter where blocks run.

    >>> makespan_in_order_s(np.array([1.0, 2.0, 3.0]), 2, 2, 1)
    7.0
    """
    if most > 1:
        return dispatch_in_order(durations_s, copies, sm_count, most, alone).makespan_s
    distinct, total = len(durations_s), len(durations_s) * copies
    first = _first_simulated(total, sm_count)
    skipped_s = float(_before(first, distinct) / sm_count @ durations_s) if first else 0.0
    offset, once = first % distinct, [float(each) for each in durations_s.tolist()]
    work = (once * -(-(total - first + offset) // distinct))[offset:]
    del work[total - first :]
    if once.count(once[0]) == distinct:
        return skipped_s + sum(work[: -(-len(work) // sm_count)])
    free = work[:sm_count]
    heapify(free)
    for seconds in work[sm_count:]:
        heapreplace(free, free[0] + seconds)
    return skipped_s + max(free)


def _first_simulated(total: int, slots: int) -> int:
    """Number of the first block that is simulated."""
    return max(0, (total - SIMULATED_WAVES * slots) // slots) * slots


def _before(first: int, distinct: int) -> NDArray[np.int64]:
    """How often each distinct block comes before it."""
    return np.bincount(np.arange(first % distinct), minlength=distinct) + first // distinct


def _spread_alone(work: list[float], places: int) -> tuple[float, list[int], list[float]]:
    """Makespan, blocks on the place that finishes last, and its work."""
    if work.count(work[0]) == len(work):  # the places take turns
        mine = range((len(work) - 1) % places, len(work), places)
        end = sum(work[: len(mine)])
        return end, list(mine), [end]
    free = [(0.0, place) for place in range(places)]
    blocks: list[list[int]] = [[] for _ in range(places)]
    for number, seconds in enumerate(work):
        start, place = free[0]
        blocks[place].append(number)
        heapreplace(free, (start + seconds, place))
    end, place = max(free)
    return end, blocks[place], [end]


def _spread_shared(work: list[float], places: int, rates: list[float]) -> tuple[float, list[int], list[float]]:
    """The same where blocks share a place at ``rates`` by their number; work done with each number of residents.

    The oldest resident has the larger part (`ELDEST`) of the place's rate, the others share the rest.
    """
    most = len(rates)
    parts = [[1.0], *([ELDEST, *([(1 - ELDEST) / others] * others)] for others in range(1, most))]
    left: list[list[float]] = [[] for _ in range(places)]  # of each resident, the oldest first
    numbers: list[list[int]] = [[] for _ in range(places)]
    for number, (seconds, place) in enumerate(zip(work, _first_places(places, most), strict=False)):
        left[place].append(seconds)
        numbers[place].append(number)
    following = min(len(work), places * most)
    blocks: list[list[int]] = [[] for _ in range(places)]
    shared = [[0.0] * most for _ in range(places)]
    until = [min(map(truediv, mine, parts[len(mine) - 1]), default=0.0) for mine in left]  # one ends: work done
    queue = [(until[place] / rates[len(mine) - 1], place) for place, mine in enumerate(left) if mine]
    heapify(queue)
    end, slowest = 0.0, 0
    while queue:
        now, place = queue[0]
        mine, done = left[place], until[place]
        count = len(mine)
        shared[place][count - 1] += done
        if count > 1:
            mine[:] = [each - done * part for each, part in zip(mine, parts[count - 1], strict=True)]
        ended = mine.index(min(mine))
        del mine[ended]
        blocks[place].append(numbers[place].pop(ended))
        end, slowest = now, place
        if following < len(work):
            mine.append(work[following])
            numbers[place].append(following)
            following += 1
        if mine:
            count = len(mine)
            until[place] = done = min(map(truediv, mine, parts[count - 1])) if count > 1 else mine[0]
            heapreplace(queue, (now + done / rates[count - 1], place))
        else:
            heappop(queue)
    return end, blocks[slowest], shared[slowest]


@lru_cache
def _first_places(places: int, most: int) -> tuple[int, ...]:
    """Where the first blocks go: to the processing clusters in turn, and there to the multiprocessor with the fewest.

    Clusters differ in size, so that small ones begin to double up before large ones have filled.
    """
    sizes = [len(part) for part in np.array_split(np.arange(places // 2), CLUSTERS)]
    starts = np.cumsum([0, *sizes]) * 2
    room = [2 * size * most for size in sizes]
    taken = [0] * CLUSTERS
    order: list[int] = []
    while len(order) < 2 * (places // 2) * most:
        for cluster, size in enumerate(sizes):
            if taken[cluster] < room[cluster]:
                order.append(int(starts[cluster]) + taken[cluster] % (2 * size))
                taken[cluster] += 1
    return tuple(order) + tuple([place for place in range(2 * (places // 2), places) for _ in range(most)])

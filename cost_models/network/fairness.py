"""Max-min fair sharing of links among flows that all run at once.

Every flow crosses links and has a ceiling of its own. The allocation is max-min fair: no flow's rate can grow without
taking from one that has no more; with weights it is the rates that are fair, not what they take. A flow's rate is then
its ceiling or its share of its *bottleneck*, a full link on which no flow has more.

Progressive filling, many bottlenecks in one round: a link is settled once its equal share is the least that any of its
flows can get anywhere, and shares elsewhere only grow when slower flows leave. Rounds are as many as bottlenecks depend
on each other, not as there are bottlenecks.

Source: Bertsekas and Gallager, Data Networks (1992), section 6.5.2; Ros-Giralt et al., "On the Bottleneck Structure of
Congestion-Controlled Networks", SIGMETRICS 2020, for settling independent bottlenecks at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_EQUAL = 1 + 1e-12


def max_min_rates(
    flow: IntArray, link: IntArray, capacities: ArrayLike, ceilings: ArrayLike, weights: ArrayLike | None = None
) -> FloatArray:
    """Rate of each flow.

    Parameters
    ----------
    flow, link : (flow, link) pairs, sorted by flow; a flow crosses a link at most once.
    capacities : of the links, bytes per second; positive.
    ceilings : of the flows, bytes per second; positive, may be infinite for a flow that crosses a link.
    weights : capacity that a flow takes of a link per unit of rate, of each pair; default 1.

    Returns
    -------
    Rates in the order of ``ceilings``.

    >>> max_min_rates(np.array([0, 0, 1, 2]), np.array([0, 1, 0, 1]), [10.0, 30.0], [np.inf, np.inf, 2.0]).tolist()
    [5.0, 5.0, 2.0]
    """
    rates = np.array(ceilings, dtype=np.float64)
    used, link = np.unique(link, return_inverse=True)
    left = np.asarray(capacities, dtype=np.float64)[used]
    weight = np.ones(len(flow)) if weights is None else np.asarray(weights, dtype=np.float64)
    while flow.size:
        number, first = np.unique(flow, return_index=True)
        taken = np.bincount(link, weight, minlength=len(left))
        share = left / np.where(taken > 0, taken, 1.0)
        reach = np.minimum.reduceat(share[link], first)
        best = np.minimum(reach, rates[number])
        spread = np.repeat(best, np.diff(first, append=flow.size))
        settled = _settled_flows(link, share, first, spread) | (rates[number] <= reach)
        rates[number[settled]] = best[settled]
        gone = np.repeat(settled, np.diff(first, append=flow.size))
        left = np.maximum(left - np.bincount(link[gone], (spread * weight)[gone], minlength=len(left)), 0.0)
        flow, link, weight = flow[~gone], link[~gone], weight[~gone]
    return rates


def _settled_flows(link: IntArray, share: FloatArray, first: IntArray, spread: FloatArray) -> NDArray[np.bool_]:
    """Which flows cross a link on which no flow can get less than the link's share."""
    least = np.full(len(share), np.inf)
    np.minimum.at(least, link, spread)
    bottleneck = least * _EQUAL >= share
    at_share = bottleneck[link] & (share[link] <= spread * _EQUAL)
    return np.logical_or.reduceat(at_share, first)

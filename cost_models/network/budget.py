"""What channels have left of the links of a node, while they are searched.

In MB/s, rounded to whole ones after every step as NCCL rounds to 0.001 GB/s.

Source: NVIDIA/nccl 2.30.7 src/graph/search.cc (followPath, ncclTopoFollowPath).
"""

from __future__ import annotations

from collections.abc import Iterable

from cost_models.network.node import Way
from cost_models.topology.paths import PathType

MB_PER_GB = 1e3

Cost = tuple[tuple[int, float], ...]
"""Links of a way, and what a channel takes of each (MB/s)."""


class Budget:
    """Capacities, what is left of them, and over how many links channels go.

    Parameters
    ----------
    capacities : of the links, GB/s.

    >>> budget = Budget([40.0])
    >>> [budget.take(((0, 25e3),)) for _ in range(2)], budget.left, budget.hops
    ([True, False], [15000], 1)
    """

    def __init__(self, capacities: Iterable[float]) -> None:
        self.left = [rate * MB_PER_GB for rate in capacities]
        self.hops = 0

    def take(self, cost: Cost | None) -> bool:
        """Take a channel's speed from the links of a way; nothing is taken if it is not left."""
        if cost is None:
            return False
        left = self.left
        for link, taken in cost:
            if left[link] < taken:
                return False
        for link, taken in cost:
            left[link] = round(left[link] - taken)
        self.hops += len(cost)
        return True

    def give_back(self, cost: Cost | None) -> None:
        """Undo it."""
        if cost:
            left = self.left
            for link, taken in cost:
                left[link] = round(left[link] + taken)
            self.hops -= len(cost)

    def fits(self, cost: Cost | None) -> bool:
        """Whether that much is left."""
        if cost is None:
            return False
        left = self.left
        for link, taken in cost:  # noqa: SIM110 - called some 10^5 times
            if left[link] < taken:
                return False
        return True


def cost_of(way: Way, speed_gb_per_s: float, farthest: PathType) -> Cost | None:
    """What a channel takes of the links of a way, None where the way is too far."""
    if way.type > farthest:
        return None
    return tuple((link, speed_gb_per_s * MB_PER_GB * share) for link, share in zip(way.links, way.shares, strict=True))

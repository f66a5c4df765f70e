"""The power limit: work without a rest runs at the highest clock for a while, then at a lower one.

late = max(0, worked - boost_s)
t(worked) = worked - late + late / (1 - sustained_loss late / (late + sustained_s))
"""

from __future__ import annotations

from typing import Protocol


class PowerLimit(Protocol):
    """When the clock falls and by how much (`cost_models.hardware.profile`)."""

    @property
    def boost_s(self) -> float:
        """Duration from which on it falls."""

    @property
    def sustained_loss(self) -> float:
        """Share of the rate that is lost in the end."""

    @property
    def sustained_s(self) -> float:
        """Duration, counted from ``boost_s``, at which half of it is lost."""


def slowed_s(limit: PowerLimit, busy_s: float, worked_s: float = 0.0) -> float:
    """Time of work that takes ``busy_s`` at the highest clock, after ``worked_s`` of such work.

    >>> from types import SimpleNamespace
    >>> limit = SimpleNamespace(boost_s=0.03, sustained_loss=0.1, sustained_s=0.0)
    >>> round(slowed_s(limit, 0.02), 4), round(slowed_s(limit, 0.018, worked_s=0.1), 4)
    (0.02, 0.02)
    """
    return _since_start_s(limit, worked_s + busy_s) - _since_start_s(limit, worked_s)


def _since_start_s(limit: PowerLimit, busy_s: float) -> float:
    late = max(0.0, busy_s - limit.boost_s)
    if not late:
        return busy_s
    return busy_s - late + late / (1 - limit.sustained_loss * late / (late + limit.sustained_s))

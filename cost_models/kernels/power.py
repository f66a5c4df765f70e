"""The power limit: work without a rest runs at the highest clock for a while, then at a lower one.

    late = max(0, busy - boost_s)
    t(busy) = busy - late + late / (1 - L(late)) + min(late, o_s) (1 / (1 - o L) - 1 / (1 - L))
    L(late) = sustained_loss late / (late + sustained_s)

The first two terms are each kernel's own: how much power it takes. What the controller of the clock does is the GPU's
(`PowerTerms`): it first overshoots, o times the loss for o_s; and a slower one, which averages over about a second,
takes ``deep_loss`` of the rate from every kernel for ``deep_for_s`` once work has gone on for ``deep_from_s``, and then
in every second again, ``later_loss`` on average. Where attention takes turns with products the clock is as low as they
make it, and attention loses what they do (`HardwareProfile.beside_products`): in steps of 92 ms and more its backward
was priced 8 to 17 % too short, products right.
Source: trains of products, of attention and of both in turns on an H100, `validators.bench.trains`.
"""

from __future__ import annotations

from typing import Protocol


class PowerLimit(Protocol):
    """When the clock falls and by how much, of a kernel (`cost_models.hardware.attention`)."""

    @property
    def boost_s(self) -> float:
        """Duration from which on it falls."""

    @property
    def sustained_loss(self) -> float:
        """Share of the rate that is lost in the end."""

    @property
    def sustained_s(self) -> float:
        """Duration, counted from ``boost_s``, at which half of it is lost."""


class PowerControl(Protocol):
    """What the GPU does about it (`cost_models.hardware.power.PowerTerms`)."""

    @property
    def overshoot(self) -> float:
        """Loss at first, over that in the end."""

    @property
    def overshoot_s(self) -> float:
        """How long it lasts."""

    @property
    def deep_from_s(self) -> float:
        """Duration of work after which the slower controller acts."""

    @property
    def deep_for_s(self) -> float:
        """How long it acts at first."""

    @property
    def deep_loss(self) -> float:
        """Share of the rate that it takes then."""

    @property
    def later_loss(self) -> float:
        """And from then on, on average."""


def slowed_s(limit: PowerLimit, control: PowerControl, busy_s: float, worked_s: float = 0.0) -> float:
    """Time of work that takes ``busy_s`` at the highest clock, after ``worked_s`` of such work.

    >>> from types import SimpleNamespace
    >>> from cost_models.hardware.power import PowerTerms
    >>> limit, control = SimpleNamespace(boost_s=0.03, sustained_loss=0.1, sustained_s=0.0), PowerTerms()
    >>> round(slowed_s(limit, control, 0.02), 4), round(slowed_s(limit, control, 0.018, worked_s=0.1), 4)
    (0.02, 0.02)
    """
    if worked_s + busy_s <= min(limit.boost_s, control.deep_from_s):
        return busy_s
    return _since_start_s(limit, control, worked_s + busy_s) - _since_start_s(limit, control, worked_s)


def _since_start_s(limit: PowerLimit, control: PowerControl, busy_s: float) -> float:
    late, loss = max(0.0, busy_s - limit.boost_s), limit.sustained_loss
    if late and loss:
        first = 1 / (1 - min(control.overshoot * loss, 0.9)) - 1 / (1 - loss)
        busy_s += late / (1 - loss * late / (late + limit.sustained_s)) - late
        busy_s += min(late, control.overshoot_s) * first
    return busy_s + _deep_s(control, busy_s - control.deep_from_s)


def _deep_s(control: PowerControl, after_s: float) -> float:
    """What the slower controller adds to work that goes on for so long after it begins to act."""
    if after_s <= 0:
        return 0.0
    kept = 1 - control.deep_loss
    first = min(after_s, control.deep_for_s * kept)
    return first / kept - first + (after_s - first) * control.later_loss / (1 - control.later_loss)

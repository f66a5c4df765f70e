"""Which ranks a figure shows: all, or as many as are readable, evenly spaced, and always the critical one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from traces.errors import InputError
from traces.metrics import finish_ns
from traces.timeline import Timeline

MAX_TRACKS = 64


def choose_ranks(timeline: Timeline, ranks: Sequence[int] | None, max_bars: int) -> list[int]:
    """The ranks to draw, ascending.

    Parameters
    ----------
    ranks : the ranks wanted; None for as many as have tracks a person can still tell apart.
    max_bars : most bars to draw: each rank needs at least one per lane and kind of operation.

    Raises
    ------
    InputError
        Where a rank does not exist, or not even one rank can be drawn.
    """
    wanted = _wanted(timeline, ranks)
    needed = _bars_needed(timeline)
    if max_bars < needed:
        raise InputError("max_bars is too small for a single rank", got=max_bars, expected=f"at least {needed}")
    room = max_bars // needed
    if ranks is None:
        room = min(room, max(1, MAX_TRACKS // max(len(np.unique(timeline.lane)), 1)))
    return _spread(wanted, room, critical=int(wanted[np.argmax(finish_ns(timeline)[wanted])]))


def _wanted(timeline: Timeline, ranks: Sequence[int] | None) -> NDArray[np.int64]:
    wanted = np.unique(np.array(range(timeline.n_ranks) if ranks is None else ranks, dtype=np.int64))
    if not wanted.size or wanted[0] < 0 or wanted[-1] >= timeline.n_ranks:
        raise InputError("ranks to draw", got=wanted.tolist(), expected=f"some of 0 to {timeline.n_ranks - 1}")
    return wanted


def _bars_needed(timeline: Timeline) -> int:
    """Pairs of a lane and a kind that a rank can have, and one for exposed communication."""
    kinds = [(info.category, info.kind) for info in timeline.operations]
    number = {kind: i for i, kind in enumerate(dict.fromkeys(kinds))}
    kind_of = np.array([number[kind] for kind in kinds], dtype=np.int64)
    return 1 + len(np.unique(timeline.lane * len(number) + kind_of[timeline.operation]))


def _spread(wanted: NDArray[np.int64], room: int, critical: int) -> list[int]:
    """Evenly spaced ranks, the one nearest to the critical rank (not an end, if possible) replaced by it."""
    if room >= len(wanted):
        return [int(rank) for rank in wanted]
    kept = wanted[np.linspace(0, len(wanted) - 1, room).round().astype(np.intp)]
    if critical not in kept:
        inner = slice(1, -1) if room > 2 else slice(None)
        nearest = np.argmin(np.abs(kept[inner] - critical)) + (inner.start or 0)
        kept[nearest] = critical
    return [int(rank) for rank in kept]

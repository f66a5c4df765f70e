"""Which ranks, and which of their rows, a figure can still show.

Bars are SVG elements: ten thousand load in three seconds, ten times as many in fifteen. Past the limit whole ranks are
left out, evenly, keeping the first, the critical and the last one; only where one rank alone is too much are its
shortest rows left out. Whatever is left out is said in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from traces.errors import InputError
from traces.metrics import finish_ns
from traces.timeline import Timeline

MAX_TRACKS = 64


class Shown(NamedTuple):
    """Ranks that are drawn, their rows (indexes), and what was left out, in words."""

    ranks: list[int]
    rows: NDArray[np.intp]
    note: str


def thin(timeline: Timeline, ranks: Sequence[int] | None, max_bars: int) -> Shown:
    """Choose what to draw.

    Parameters
    ----------
    ranks : the ranks to draw; None for as many as fit.
    max_bars : most rows to draw.
    """
    wanted = _wanted(timeline, ranks)
    most_bars = int(np.bincount(timeline.rank, minlength=timeline.n_ranks)[wanted].max(initial=1))
    room = max(1, max_bars // max(most_bars, 1))
    if ranks is None:
        room = min(room, MAX_TRACKS // max(len(timeline.lanes), 1) or 1)
    kept = _spread(wanted, room, critical=int(wanted[np.argmax(finish_ns(timeline)[wanted])]))
    rows = np.flatnonzero(np.isin(timeline.rank, kept))
    drawn = _longest(timeline, rows, max_bars)
    return Shown(kept, drawn, _note(len(kept), len(wanted), len(drawn), len(rows)))


def _wanted(timeline: Timeline, ranks: Sequence[int] | None) -> NDArray[np.int64]:
    wanted = np.unique(np.array(range(timeline.n_ranks) if ranks is None else ranks, dtype=np.int64))
    if not wanted.size or wanted[0] < 0 or wanted[-1] >= timeline.n_ranks:
        raise InputError("ranks to draw", got=wanted.tolist(), expected=f"some of 0 to {timeline.n_ranks - 1}")
    return wanted


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


def _longest(timeline: Timeline, rows: NDArray[np.intp], max_bars: int) -> NDArray[np.intp]:
    if len(rows) <= max_bars:
        return rows
    length = (timeline.end_ns - timeline.start_ns)[rows]
    return np.sort(rows[np.argsort(-length, kind="stable")[:max_bars]])


def _note(ranks: int, all_ranks: int, bars: int, all_bars: int) -> str:
    parts = []
    if ranks < all_ranks:
        parts.append(f"Showing {ranks} of {all_ranks} ranks (first, critical, last and between).")
    if bars < all_bars:
        parts.append(f"Showing the {bars:,} longest of {all_bars:,} rows.")
    return " ".join([*parts, "The trace files hold all of them."] if parts else [])

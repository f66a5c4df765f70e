"""Why a rank does nothing: every gap between its rows, split by cause.

A gap [a, b) ends where the next row begins. With L the end of the host's call that launched that row:

    host             [a, min(L, b))                    the row was not yet issued
    synchronisation  the part of that in which the host waited for the device
    launch           [max(a, L), b), up to 10 µs       issued; what a GPU takes to begin
    dependency       what is longer                    issued; the row waited for another stream or another rank
    unexplained      gaps before rows of which no call is known
    tail             after the step's last row, until the step ends

Where the rows are the CPU's own operators, the host is what runs between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from traces.intervals import Intervals, intersect, subtract, unite
from traces.kineto.facts import Sync
from traces.launches import Launches
from traces.metrics import busy_intervals
from traces.timeline import Timeline

CAUSES = ("host", "synchronisation", "launch", "dependency", "unexplained", "tail")
LAUNCH_NS = 10_000
DEVICE = ("compute", "communication", "copy")


def idle_by_cause(
    timeline: Timeline,
    rank: int,
    launches: Launches,
    window: Intervals,
    *,
    syncs: Sequence[Sync] = (),
    on_device: bool = True,
) -> dict[str, int]:
    """Idle nanoseconds of a rank within a window, by cause; all causes are there, and they sum to the idle time."""
    gaps = subtract(window, busy_intervals(timeline, rank, *DEVICE))
    parts = split_gaps(timeline, rank, launches, gaps, on_device=on_device)
    waiting = unite(Intervals(*_columns([(sync.start_ns, sync.end_ns) for sync in syncs])))
    parts["synchronisation"] = intersect(parts["host"], waiting)
    parts["host"] = subtract(parts["host"], waiting)
    return {cause: parts[cause].total_ns if cause in parts else 0 for cause in CAUSES}


def split_gaps(
    timeline: Timeline, rank: int, launches: Launches, gaps: Intervals, *, on_device: bool
) -> dict[str, Intervals]:
    """Parts of gaps by cause; synchronisation is still within host."""
    rows = np.flatnonzero((timeline.rank == rank) & (timeline.end_ns > timeline.start_ns))
    rows = rows[np.argsort(timeline.start_ns[rows], kind="stable")]
    following = np.searchsorted(timeline.start_ns[rows], gaps.end)
    last = np.append(timeline.start_ns[rows], np.iinfo(np.int64).max)[following] > gaps.end
    launch_end = np.append(launches.end_ns[rows], -1)[following]
    known = ~last & (launch_end >= 0)
    issued = np.clip(launch_end, gaps.start, gaps.end)
    begun = np.minimum(issued + LAUNCH_NS, gaps.end)
    nowhere = "unexplained" if on_device else "host"
    parts = {
        "host": Intervals(gaps.start[known], issued[known]),
        "launch": Intervals(issued[known], begun[known]),
        "dependency": Intervals(begun[known], gaps.end[known]),
        "tail": Intervals(gaps.start[last], gaps.end[last]),
    }
    unknown = ~last & ~known
    rest = Intervals(gaps.start[unknown], gaps.end[unknown])
    if nowhere == "host":
        parts["host"] = Intervals(*(np.concatenate(pair) for pair in zip(parts["host"], rest, strict=True)))
    else:
        parts["unexplained"] = rest
    return {cause: unite(each) for cause, each in parts.items()}


def _columns(pairs: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    columns = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]

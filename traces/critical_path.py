"""The critical path of a timeline across ranks: what, made shorter, would have ended the run earlier.

From the row that ends last, backwards in time:

    a communication that began before the last of its ranks did  ->  to that rank's row; only [its start, end) counts
    a row                                                        ->  to the row of its rank that ended last before it
    time between the two                                         ->  host, launch or dependency, as in `traces.idle`

The pieces follow each other without a hole from 0 to the makespan. A timeline does not say which rows truly waited for
each other: the last to end before a row began stands for what it waited for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from traces.idle import LAUNCH_NS
from traces.launches import Launches
from traces.timeline import Timeline

IntArray = NDArray[np.int64]


class Piece(NamedTuple):
    """Part of the path: a row (its operation), or a gap on a rank (operation -1), named by kind or cause."""

    rank: int
    operation: int
    name: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class CriticalPath:
    """Pieces in order of time."""

    pieces: tuple[Piece, ...]

    def by_name(self) -> dict[str, int]:
        """Nanoseconds by ``category/kind`` or ``idle/cause``, the longest first."""
        return self._sums("name")

    def by_rank(self) -> dict[int, int]:
        """Nanoseconds by rank, the longest first."""
        return self._sums("rank")

    def _sums(self, field: str) -> dict:  # type: ignore[type-arg]
        sums: Counter[object] = Counter()
        for piece in self.pieces:
            sums[getattr(piece, field)] += piece.end_ns - piece.start_ns
        return dict(sums.most_common())


def critical_path(timeline: Timeline, launches: Launches | None = None, *, on_device: bool = True) -> CriticalPath:
    """Find the critical path.

    Parameters
    ----------
    launches : when the host issued the rows, where known; gaps are then told apart by cause.
    on_device : whether rows ran on GPUs; else gaps are the host's own work.
    """
    walk = _Walk(timeline, launches or Launches.none(len(timeline)), "unexplained" if on_device else "host")
    return CriticalPath(tuple(reversed(list(walk.backwards()))))


class _Walk:
    """Looks up what came before."""

    def __init__(self, timeline: Timeline, launches: Launches, unknown: str) -> None:
        self._timeline, self._launches, self._unknown = timeline, launches, unknown
        categories = [info.category for info in timeline.operations]
        self._names = [f"{info.category}/{info.kind}" for info in timeline.operations]
        self._communicates = np.array([each == "communication" for each in categories], dtype=bool)
        device = np.array([each != "host" for each in categories], dtype=bool)
        busy = (timeline.end_ns > timeline.start_ns) & device[timeline.operation]
        self._rows = np.flatnonzero(busy)
        self._by_end = [self._sorted(rank) for rank in range(timeline.n_ranks)]
        self._order = np.argsort(timeline.operation, kind="stable")
        self._first = np.searchsorted(timeline.operation[self._order], np.arange(len(timeline.operations) + 1))

    def _sorted(self, rank: int) -> tuple[IntArray, IntArray]:
        rows = self._rows[self._timeline.rank[self._rows] == rank]
        rows = rows[np.argsort(self._timeline.end_ns[rows], kind="stable")]
        return rows, self._timeline.end_ns[rows]

    def backwards(self) -> Iterator[Piece]:
        """The pieces, the last first."""
        timeline = self._timeline
        row = int(self._rows[np.argmax(timeline.end_ns[self._rows])]) if len(self._rows) else -1
        while row >= 0:
            last = self._last_to_begin(row)
            rank, operation = int(timeline.rank[last]), int(timeline.operation[row])
            start_ns = int(timeline.start_ns[last])
            yield Piece(int(timeline.rank[row]), operation, self._names[operation], start_ns, int(timeline.end_ns[row]))
            before = self._before(rank, start_ns)
            yield from self._gap(last, rank, int(timeline.end_ns[before]) if before >= 0 else 0, start_ns)
            row = before

    def _last_to_begin(self, row: int) -> int:
        """Of a communication, the row of the rank that began last, but not after this one ended."""
        timeline, operation = self._timeline, self._timeline.operation[row]
        if not self._communicates[operation]:
            return row
        rows = self._order[self._first[operation] : self._first[operation + 1]]
        start = timeline.start_ns[rows]
        allowed = start < timeline.end_ns[row]
        latest = int(rows[allowed][np.argmax(start[allowed])])
        return latest if timeline.start_ns[latest] > timeline.start_ns[row] else row

    def _before(self, rank: int, time_ns: int) -> int:
        rows, ends = self._by_end[rank]
        at = int(np.searchsorted(ends, time_ns, side="right")) - 1
        return int(rows[at]) if at >= 0 else -1

    def _gap(self, row: int, rank: int, start_ns: int, end_ns: int) -> Iterator[Piece]:
        """Why the row did not begin earlier, the last part first."""
        issued_ns = int(self._launches.end_ns[row])
        if issued_ns < 0:
            cuts = [(self._unknown, start_ns, end_ns)]
        else:
            issued_ns = min(max(issued_ns, start_ns), end_ns)
            begun_ns = min(issued_ns + LAUNCH_NS, end_ns)
            cuts = [("dependency", begun_ns, end_ns), ("launch", issued_ns, begun_ns), ("host", start_ns, issued_ns)]
        for cause, low_ns, high_ns in cuts:
            if high_ns > low_ns:
                yield Piece(rank, -1, f"idle/{cause}", low_ns, high_ns)

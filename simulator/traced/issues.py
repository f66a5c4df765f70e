"""A rank's rows in the order of a Program, and what each of them waits for.

The engines' rules (`simulator.program.tape`) say that communication waits for all computation issued before it. Order
is therefore chosen so that this was so: a row of the compute lane counts at its end, another at its start.

Waits come from the trace's own events (cudaStreamWaitEvent, as CUPTI records it), each for the last row that the source
had been given by then. A trace without them shows only waits that took time: a row that begins where another lane's
row ends, and later than its own lane allowed, waited for it. What such a trace does not show, a what-if cannot know.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from traces.kineto.recording import Recording
from traces.timeline import Timeline

IntArray = NDArray[np.int64]
NEVER = np.iinfo(np.int64).max
SLACK_NS = {True: 20_000, False: 300_000}
"""Longest time between the end of a row and the start of one that waited for it, on GPUs and on CPUs."""


class Issue(NamedTuple):
    """A row, or (row -1) a synchronisation of the host.

    Attributes
    ----------
    issued_ns : when the host had issued it; that of a synchronisation is its start.
    end_ns : of the row or the synchronisation.
    sources : rows that it waits for, besides what the rules say.
    """

    row: int
    issued_ns: int
    end_ns: int
    sources: tuple[int, ...]


class RankIssues(NamedTuple):
    """What a rank issues, in order; the lane that counts as its compute lane; and how its waits are known."""

    issues: list[Issue]
    compute_lane: int
    inferred: int


def order_issues(recording: Recording, rank: int) -> RankIssues:
    """Order one rank's rows."""
    timeline = recording.timeline
    rows = np.flatnonzero(timeline.rank == rank)
    compute_lane = _busiest_lane(timeline, rows)
    recorded = bool(recording.waits[rank])
    sources = _recorded_sources(recording, rank, rows) if recorded else _inferred_sources(recording, rows, compute_lane)
    syncs = list(_synchronisations(recording, rank, rows, compute_lane)) if recording.on_device else []
    issues = [*_rows(recording, rows, sources, compute_lane), *syncs]
    return RankIssues(_monotonic(_in_order(timeline, issues, compute_lane)), compute_lane, _guessed(recorded, sources))


def _rows(
    recording: Recording, rows: NDArray[np.intp], sources: dict[int, tuple[int, ...]], compute_lane: int
) -> Iterator[Issue]:
    timeline, called = recording.timeline, recording.launches.end_ns
    for row in rows.tolist():
        issued_ns = min(int(called[row]), int(timeline.start_ns[row])) if called[row] >= 0 else NEVER
        waited = tuple(each for each in sources.get(row, ()) if timeline.lane[each] != compute_lane)
        yield Issue(row, issued_ns, int(timeline.end_ns[row]), waited)


def _guessed(recorded: bool, sources: dict[int, tuple[int, ...]]) -> int:
    return 0 if recorded else sum(map(len, sources.values()))


def _in_order(timeline: Timeline, issues: list[Issue], compute_lane: int) -> list[Issue]:
    """By issue; but what began before earlier computation ended did not wait for it, and stands before it."""

    def begun_ns(issue: Issue) -> int:
        return int(timeline.start_ns[issue.row]) if issue.row >= 0 else issue.end_ns

    def computes(issue: Issue) -> bool:
        return issue.row >= 0 and timeline.lane[issue.row] == compute_lane

    known = all(issue.issued_ns < NEVER for issue in issues)
    issues = sorted(issues, key=lambda each: (each.issued_ns if known else begun_ns(each), begun_ns(each)))
    computed = [(place, issue) for place, issue in enumerate(issues) if computes(issue)]
    ends = [issue.end_ns for _, issue in computed]
    places = []
    for place, issue in enumerate(issues):
        running = bisect_right(ends, begun_ns(issue))
        before = computed[running][0] - 0.5 if running < len(computed) else NEVER
        places.append((float(place) if computes(issue) else min(place, before), begun_ns(issue), place))
    return [issues[place] for *_, place in sorted(places)]


def _busiest_lane(timeline: Timeline, rows: IntArray | NDArray[np.intp]) -> int:
    """The lane with most computation."""
    computes = np.array([info.category == "compute" for info in timeline.operations], dtype=bool)
    weight = (timeline.end_ns[rows] - timeline.start_ns[rows]) * computes[timeline.operation[rows]]
    return int(np.argmax(np.bincount(timeline.lane[rows], weights=weight + 1e-9, minlength=len(timeline.lanes))))


def _monotonic(issues: list[Issue]) -> list[Issue]:
    """No row is issued later than what stands after it: the host issues in order; what is unknown does not delay."""
    earliest, ordered = NEVER, []
    for issue in reversed(issues):
        earliest = min(earliest, issue.issued_ns)
        ordered.append(issue._replace(issued_ns=earliest if earliest < NEVER else 0))
    return ordered[::-1]


def _recorded_sources(recording: Recording, rank: int, rows: NDArray[np.intp]) -> dict[int, tuple[int, ...]]:
    """For each waiting row the last row that each source lane had been given."""
    timeline, launches = recording.timeline, recording.launches
    by_lane = {}
    for lane in np.unique(timeline.lane[rows]).tolist():
        mine = rows[timeline.lane[rows] == lane]
        mine = mine[np.argsort(launches.end_ns[mine], kind="stable")]
        by_lane[lane] = mine, launches.end_ns[mine]
    found: dict[int, tuple[int, ...]] = {}
    for wait in recording.waits[rank]:
        if wait.stream not in by_lane:
            continue
        waiting, called = by_lane[wait.stream]
        at = int(np.searchsorted(called, wait.host_ns, side="right"))
        if at == len(waiting):
            continue
        row = int(waiting[at])
        for lane in by_lane if wait.source < 0 else [wait.source]:
            source = _last_given(by_lane.get(lane), wait.recorded_ns if wait.recorded_ns >= 0 else wait.host_ns)
            if lane != wait.stream and source >= 0 and timeline.end_ns[source] <= timeline.start_ns[row]:
                found[row] = (*found.get(row, ()), source)
    return found


def _last_given(lane: tuple[NDArray[np.intp], IntArray] | None, time_ns: int) -> int:
    if lane is None:
        return -1
    at = int(np.searchsorted(lane[1], time_ns, side="right")) - 1
    return int(lane[0][at]) if at >= 0 else -1


def _inferred_sources(recording: Recording, rows: NDArray[np.intp], compute_lane: int) -> dict[int, tuple[int, ...]]:
    """For each row that began after a gap in its lane, the row of another lane whose end ended the gap."""
    timeline, slack_ns = recording.timeline, SLACK_NS[recording.on_device]
    others = rows[(timeline.lane[rows] != compute_lane) & (timeline.end_ns[rows] > timeline.start_ns[rows])]
    others = others[np.argsort(timeline.end_ns[others], kind="stable")]
    ends = timeline.end_ns[others]
    free: dict[int, int] = {}
    found: dict[int, tuple[int, ...]] = {}
    for row in rows[np.argsort(timeline.start_ns[rows], kind="stable")].tolist():
        lane, start_ns = int(timeline.lane[row]), int(timeline.start_ns[row])
        high = int(np.searchsorted(ends, start_ns, side="right"))
        low = int(np.searchsorted(ends, max(free.get(lane, -1), start_ns - slack_ns), side="right"))
        candidates = [int(each) for each in others[low:high] if timeline.lane[each] != lane]
        if candidates:
            found[row] = (candidates[-1],)
        free[lane] = int(timeline.end_ns[row])
    return found


def _synchronisations(recording: Recording, rank: int, rows: NDArray[np.intp], compute_lane: int) -> Iterator[Issue]:
    """Each with the last row that each lane it waits for had been given, of those that ended by then."""
    timeline, called = recording.timeline, recording.launches.end_ns
    lanes: Sequence[int] = np.unique(timeline.lane[rows]).tolist()
    for sync in recording.syncs[rank]:
        sources = []
        for lane in lanes if sync.stream < 0 else [sync.stream]:
            given = rows[(timeline.lane[rows] == lane) & (called[rows] <= sync.start_ns)]
            given = given[timeline.end_ns[given] <= sync.end_ns]
            if len(given) and lane != compute_lane:
                sources.append(int(given[np.argmax(timeline.end_ns[given])]))
        yield Issue(-1, sync.start_ns, sync.end_ns, tuple(sources))

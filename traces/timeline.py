"""What happened when: one row per (operation, rank), whether simulated or measured.

    row i:  operation[i] runs on rank[i], lane[i] from start_ns[i] to end_ns[i] and moves bytes[i]

Time 0 is when all devices are idle and all hosts start issuing; the makespan is the last end. A lane is a queue (a
stream, a link direction, a host thread): on one rank its rows never overlap. The columns are NumPy arrays, read-only,
so that a million rows cost megabytes and every question is a few vector operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from traces.errors import InputError

CATEGORIES = ("compute", "communication", "copy", "host")
COLUMNS = {"start_ns": "<i8", "end_ns": "<i8", "rank": "<i4", "lane": "<i4", "operation": "<i4", "bytes": "<i8"}

IntArray = NDArray[np.int64]
IndexArray = NDArray[np.int32]


@dataclass(frozen=True)
class OperationInfo:
    """What is the same on every rank that runs an operation.

    Attributes
    ----------
    id : position in ``Timeline.operations``.
    name : as shown to people.
    kind : what it does: ``attention_forward``, ``merge``, ``exchange``, ``all_to_all``, ...
    phase : ``forward``, ``backward``, ``optimizer``, ...
    step : step of the schedule, from 0.
    category : ``compute``, ``communication``, ``copy`` or ``host``.
    """

    id: int
    name: str
    kind: str
    phase: str
    step: int
    category: str

    def __post_init__(self) -> None:
        if self.category not in CATEGORIES:
            expected = "one of " + ", ".join(CATEGORIES)
            raise InputError(f"category of operation {self.id} is unknown", got=self.category, expected=expected)
        if "/" in self.kind + self.phase:
            raise InputError(
                f"kind and phase of operation {self.id}", got=f"{self.kind}, {self.phase}", expected="names without '/'"
            )


@dataclass(frozen=True)
class Sameness:
    """Whether two timelines are the same; false values say the first difference in words.

    >>> bool(Sameness()), bool(Sameness("1 rank against 2"))
    (True, False)
    """

    difference: str = ""

    def __bool__(self) -> bool:
        return not self.difference

    def __str__(self) -> str:
        return self.difference or "the same"


@dataclass(frozen=True, eq=False)
class Timeline:
    """Operations of all ranks in time.

    Attributes
    ----------
    operations : the operations; ``operations[i].id == i``.
    lanes : names of the lanes, the same on every rank.
    n_ranks : number of ranks.
    start_ns, end_ns : int64 columns, nanoseconds from time 0, ``0 <= start <= end``.
    rank, lane, operation : int32 columns, indexes.
    bytes : int64 column, bytes that the rank sends in this row (0 for computation).
    provenance : JSON values saying where the timeline comes from.

    Raises
    ------
    InputError
        Where the columns do not fit together or two rows of one (rank, lane) overlap.

    >>> infos = (OperationInfo(0, "attention", "attention_forward", "forward", 0, "compute"),)
    >>> timeline = Timeline(infos, ("compute",), 2, [0, 0], [5, 7], [0, 1], [0, 0], [0, 0], [0, 0])
    >>> timeline.makespan_ns, len(timeline.select(rank=1))
    (7, 1)
    """

    operations: tuple[OperationInfo, ...]
    lanes: tuple[str, ...]
    n_ranks: int
    start_ns: IntArray
    end_ns: IntArray
    rank: IndexArray
    lane: IndexArray
    operation: IndexArray
    bytes: IntArray
    provenance: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bounds = {"rank": self.n_ranks, "lane": len(self.lanes), "operation": len(self.operations)}
        for name, dtype in COLUMNS.items():
            object.__setattr__(self, name, _column(name, getattr(self, name), dtype, bounds.get(name)))
        _check_lengths(self)
        _check_ids(self.operations)
        _check_times(self)
        _check_bytes(self)
        _check_one_row_each(self)
        _check_lanes_exclusive(self)

    def __len__(self) -> int:
        return len(self.start_ns)

    @property
    def makespan_ns(self) -> int:
        """End of the last row, in nanoseconds; 0 where there are none."""
        return int(self.end_ns.max(initial=0))

    def select(self, *, rank: int) -> Timeline:
        """The rows of one rank; operations, lanes and the number of ranks stay."""
        keep = self.rank == rank
        return replace(self, **{name: getattr(self, name)[keep] for name in COLUMNS})

    def rows_of(self, operation: int) -> NDArray[np.intp]:
        """Indexes of the rows of one operation, in the order of their ranks."""
        rows = np.flatnonzero(self.operation == operation)
        return rows[np.argsort(self.rank[rows])]

    def same_as(self, other: Timeline) -> Sameness:
        """Whether both hold the same rows, in any order; provenance may differ.

        Returns
        -------
        Sameness
            True or false, with the first difference in words.
        """
        for name in ("n_ranks", "lanes", "operations"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return Sameness(_first_unequal(name, mine, theirs))
        if len(self) != len(other):
            return Sameness(f"{len(self)} rows against {len(other)}")
        return self._same_rows(other)

    def _same_rows(self, other: Timeline) -> Sameness:
        mine, theirs = (np.lexsort((each.rank, each.operation)) for each in (self, other))
        for name in ("operation", "rank", "lane", "start_ns", "end_ns", "bytes"):
            a, b = getattr(self, name)[mine], getattr(other, name)[theirs]
            unequal = np.flatnonzero(a != b)
            if unequal.size:
                at = int(unequal[0])
                return Sameness(f"{self._describe(int(mine[at]))}: {name} {a[at]} against {b[at]}")
        return Sameness()

    def _describe(self, row: int) -> str:
        info = self.operations[self.operation[row]]
        return f"operation {info.id} ({info.name}) on rank {self.rank[row]}"


def _first_unequal(name: str, mine: object, theirs: object) -> str:
    if isinstance(mine, tuple) and isinstance(theirs, tuple) and len(mine) == len(theirs):
        at = next(i for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b)
        return f"{name}[{at}]: {mine[at]} against {theirs[at]}"
    if isinstance(mine, tuple) and isinstance(theirs, tuple):
        return f"{len(mine)} {name} against {len(theirs)}"
    return f"{name}: {mine} against {theirs}"


def _column(name: str, values: ArrayLike, dtype: str, bound: int | None) -> NDArray[np.signedinteger]:
    """A read-only column of the right type; its own values are checked here, before they are narrowed."""
    raw = np.asarray(values)
    if raw.size and raw.dtype.kind not in "iu":
        raise InputError(f"timeline column {name} has the wrong type", got=raw.dtype, expected="integers")
    if bound is not None and raw.size and (raw.min() < 0 or raw.max() >= bound):
        raise InputError(
            f"timeline column {name} is out of range", got=f"{raw.min()} to {raw.max()}", expected=f"0 to {bound - 1}"
        )
    column = raw.astype(dtype, copy=False).view()
    column.flags.writeable = False
    return column


def _check_lengths(timeline: Timeline) -> None:
    shapes = {name: getattr(timeline, name).shape for name in COLUMNS}
    if len(set(shapes.values())) != 1 or timeline.start_ns.ndim != 1:
        raise InputError("timeline columns differ in shape", got=shapes, expected="one length")


def _check_ids(operations: tuple[OperationInfo, ...]) -> None:
    wrong = next((i for i, info in enumerate(operations) if info.id != i), None)
    if wrong is not None:
        raise InputError("operation ids do not count from 0", got=f"id {operations[wrong].id} at position {wrong}")


def _check_times(timeline: Timeline) -> None:
    wrong = np.flatnonzero((timeline.end_ns < timeline.start_ns) | (timeline.start_ns < 0))
    if wrong.size:
        row = int(wrong[0])
        raise InputError(
            f"times of {timeline._describe(row)} are impossible",
            got=f"{timeline.start_ns[row]} to {timeline.end_ns[row]} ns",
            expected="0 <= start <= end",
        )


def _check_bytes(timeline: Timeline) -> None:
    if timeline.bytes.min(initial=0) < 0:
        raise InputError("timeline column bytes is negative", got=int(timeline.bytes.min()))


def _check_one_row_each(timeline: Timeline) -> None:
    key = timeline.operation.astype(np.int64) * timeline.n_ranks + timeline.rank
    order = np.argsort(key, kind="stable")
    twice = np.flatnonzero(np.diff(key[order]) == 0)
    if twice.size:
        row = int(order[twice[0] + 1])
        raise InputError(f"{timeline._describe(row)} has several rows", expected="one row per (operation, rank)")


def _check_lanes_exclusive(timeline: Timeline) -> None:
    """Sorted by lane and start, each row must begin after the one before it ended: ends then never decrease."""
    queue = timeline.rank.astype(np.int64) * len(timeline.lanes) + timeline.lane
    order = np.lexsort((timeline.end_ns, timeline.start_ns, queue))
    queue, start, end = queue[order], timeline.start_ns[order], timeline.end_ns[order]
    overlapping = np.flatnonzero((queue[1:] == queue[:-1]) & (start[1:] < end[:-1]))
    if overlapping.size:
        first, second = (int(order[overlapping[0] + i]) for i in (0, 1))
        raise InputError(
            f"rows overlap in lane {timeline.lanes[timeline.lane[first]]}",
            got=f"{timeline._describe(first)} until {timeline.end_ns[first]} ns, "
            f"{timeline._describe(second)} from {timeline.start_ns[second]} ns",
            expected="one row at a time",
        )

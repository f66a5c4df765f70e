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
from numpy.typing import NDArray

from traces.errors import InputError
from traces.invariants import COLUMNS, as_column, check_counts, check_timeline

CATEGORIES = ("compute", "communication", "copy", "host")

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
    lanes : names of the lanes, all different, the same on every rank.
    n_ranks : number of ranks, at least 1.
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
        check_counts(self.n_ranks, self.lanes)
        for name in COLUMNS:
            object.__setattr__(self, name, as_column(name, getattr(self, name), bounds.get(name)))
        check_timeline(self)

    def __len__(self) -> int:
        return len(self.start_ns)

    @property
    def makespan_ns(self) -> int:
        """End of the last row, in nanoseconds; 0 where there are none."""
        return int(self.end_ns.max(initial=0))

    def select(self, *, rank: int) -> Timeline:
        """The rows of one rank; operations, lanes and the number of ranks stay."""
        self.check_rank(rank)
        keep = self.rank == rank
        return replace(self, **{name: getattr(self, name)[keep] for name in COLUMNS})

    def check_rank(self, rank: int) -> None:
        """Refuse a rank that the timeline does not have."""
        if not 0 <= rank < self.n_ranks:
            raise InputError("timeline has no such rank", got=rank, expected=f"0 to {self.n_ranks - 1}")

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
                return Sameness(f"{self.describe_row(int(mine[at]))}: {name} {a[at]} against {b[at]}")
        return Sameness()

    def describe_row(self, row: int) -> str:
        """Operation and rank of a row, for messages."""
        info = self.operations[self.operation[row]]
        return f"operation {info.id} ({info.name}) on rank {self.rank[row]}"


def _first_unequal(name: str, mine: object, theirs: object) -> str:
    if isinstance(mine, tuple) and isinstance(theirs, tuple) and len(mine) == len(theirs):
        at = next(i for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b)
        return f"{name}[{at}]: {mine[at]} against {theirs[at]}"
    if isinstance(mine, tuple) and isinstance(theirs, tuple):
        return f"{len(mine)} {name} against {len(theirs)}"
    return f"{name}: {mine} against {theirs}"

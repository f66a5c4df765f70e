"""What every timeline keeps to; each function refuses one way in which columns do not fit together.

    ranks, lanes, operations   counted from 0, lanes told apart by their names
    0 <= start <= end          in every row
    one row                    per (operation, rank)
    next start >= end          in every (rank, lane): a queue runs one row at a time

Everything downstream relies on these and checks none of them again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from traces.errors import InputError

if TYPE_CHECKING:
    from traces.timeline import Timeline

COLUMNS = {"start_ns": "<i8", "end_ns": "<i8", "rank": "<i4", "lane": "<i4", "operation": "<i4", "bytes": "<i8"}
MAX_RANKS = 1 << 20


def check_timeline(timeline: Timeline) -> None:
    """Refuse columns that do not fit together, or rows that cannot be.

    Raises
    ------
    InputError
        Naming the first row or field that is wrong.
    """
    _check_lengths(timeline)
    _check_ids(timeline)
    _check_provenance(timeline)
    _check_times(timeline)
    _check_bytes(timeline)
    _check_one_row_each(timeline)
    _check_lanes_exclusive(timeline)


def check_counts(n_ranks: int, lanes: tuple[str, ...]) -> None:
    """Refuse an impossible number of ranks, and lanes that share a name."""
    if not 1 <= n_ranks <= MAX_RANKS:
        raise InputError("number of ranks of a timeline", got=n_ranks, expected=f"1 to {MAX_RANKS}")
    if len(set(lanes)) < len(lanes):
        raise InputError("lanes of a timeline share a name", got=", ".join(lanes), expected="a name each")


def as_column(name: str, values: ArrayLike, bound: int | None) -> NDArray[np.signedinteger]:
    """A read-only column of its type; its values are checked here, before they are narrowed.

    Parameters
    ----------
    bound : number of things that an index may point to; None for a quantity.
    """
    raw = np.asarray(values)
    if raw.size and raw.dtype.kind not in "iu":
        raise InputError(f"timeline column {name} has the wrong type", got=raw.dtype, expected="integers")
    if bound is not None and raw.size and (raw.min() < 0 or raw.max() >= bound):
        expected = f"0 to {bound - 1}" if bound else "no rows, as there is nothing to point to"
        raise InputError(
            f"timeline column {name} is out of range", got=f"{raw.min()} to {raw.max()}", expected=expected
        )
    column = raw.astype(COLUMNS[name], copy=raw.flags.writeable)
    column.flags.writeable = False
    return column


def _check_lengths(timeline: Timeline) -> None:
    shapes = {name: getattr(timeline, name).shape for name in COLUMNS}
    if len(set(shapes.values())) != 1 or timeline.start_ns.ndim != 1:
        raise InputError("timeline columns differ in shape", got=shapes, expected="one length")


def _check_ids(timeline: Timeline) -> None:
    wrong = next((i for i, info in enumerate(timeline.operations) if info.id != i), None)
    if wrong is not None:
        got = f"id {timeline.operations[wrong].id} at position {wrong}"
        raise InputError("operation ids do not count from 0", got=got)


def _check_provenance(timeline: Timeline) -> None:
    try:
        json.dumps(dict(timeline.provenance), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError("provenance of a timeline is not JSON", got=error) from error


def _check_times(timeline: Timeline) -> None:
    wrong = np.flatnonzero((timeline.end_ns < timeline.start_ns) | (timeline.start_ns < 0))
    if wrong.size:
        row = int(wrong[0])
        raise InputError(
            f"times of {timeline.describe_row(row)} are impossible",
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
        raise InputError(f"{timeline.describe_row(row)} has several rows", expected="one row per (operation, rank)")


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
            got=f"{timeline.describe_row(first)} until {timeline.end_ns[first]} ns, "
            f"{timeline.describe_row(second)} from {timeline.start_ns[second]} ns",
            expected="one row at a time",
        )

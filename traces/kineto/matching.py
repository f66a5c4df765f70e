"""Which rows of different ranks are one operation.

Ranks run the same program, though some skip parts of it. Communication anchors them: the n-th communication of a kind
in a process group is the same operation on all its ranks. Other work is the i-th of its kind and phase since the last
communication was issued. A trace that attnsim or its executor wrote names operations itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from traces.kineto.facts import Label, RankTrace, Window

IntArray = NDArray[np.int64]


Key = tuple[object, ...]


class Issued(NamedTuple):
    """A rank's rows in the order of their issue: positions, and of each its phase, step and the trace's step."""

    order: IntArray
    launch_start_ns: IntArray
    launch_end_ns: IntArray
    phase: list[str]
    step: list[int]
    window: list[str]


def in_order_of_issue(trace: RankTrace) -> Issued:
    """Sort a rank's rows by the host's call, or where it is unknown by their start."""
    rows, start = trace.rows, trace.rows.numpy("start_ns")
    called, returned = trace.launches.find(rows.numpy("correlation"))
    issued = np.where(called >= 0, called, start)
    order = np.lexsort((start, issued))
    phase_of, step_of = Lookup(trace.phases), Lookup(trace.windows)
    phases, steps, windows = [], [], []
    for row, time_ns in zip(order.tolist(), issued[order].tolist(), strict=True):
        label = trace.labels[rows["label"][row]]
        phases.append(label.phase or phase_of.name(time_ns) or ("other" if trace.phases else _phase_by_kind(label)))
        windows.append(step_of.name(time_ns))
        steps.append(label.step if label.step >= 0 else int(windows[-1] or 0))
    return Issued(order, called, returned, phases, steps, windows)


def operation_keys(trace: RankTrace, issued: Issued) -> Iterator[Key]:
    """A name for each row, in order of issue, that other ranks give to the same operation; unique on this rank."""
    seen: Counter[Key] = Counter()
    communications = 0
    for place, row in enumerate(issued.order.tolist()):
        label, phase = trace.labels[trace.rows["label"][row]], issued.phase[place]
        own = trace.rows["operation"][row]
        if own >= 0:
            key: Key = ("own", own, label.kind, issued.window[place])
        elif label.kind.category == "communication":
            communications += 1
            key = ("communication", label.group or trace.lanes[trace.rows["lane"][row]], label.kind)
        else:
            key = (label.kind, phase, communications)
        yield (*key, seen[key])
        seen[key] += 1


class Lookup:
    """Which of some windows contains a time; of nested ones the innermost."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self._windows = sorted(windows, key=lambda each: (each.start_ns, -each.end_ns))
        self._starts = [each.start_ns for each in self._windows]
        self._reach = list(accumulate((each.end_ns for each in self._windows), max))

    def name(self, time_ns: int) -> str:
        """Its name; "" where there is none."""
        at = bisect_right(self._starts, time_ns) - 1
        while at >= 0 and self._reach[at] > time_ns:
            if self._windows[at].end_ns > time_ns:
                return self._windows[at].name
            at -= 1
        return ""


def _phase_by_kind(label: Label) -> str:
    return "backward" if label.kind.kind.endswith("backward") else "forward"

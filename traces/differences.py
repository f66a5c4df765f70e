"""A simulated timeline against a measured one: what the difference consists of, and which operations make it.

    parts        both makespans as disjoint parts on their critical ranks (`traces.metrics.breakdown`), kind by kind:
                 the differences of the parts sum to the difference of the makespans
    operations   the i-th operation of a kind and phase against the i-th; its time is the mean over its ranks
    efficiency   overlap, the share of communication that computation hides

Of a measured trace one step is compared, the fastest unless another is named: a simulation is of one call. Parts are
ranked by what they cost, that is by their absolute difference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from traces.display import format_ns
from traces.errors import InputError
from traces.kineto.annotations import ANNOTATION_PREFIX
from traces.kineto.recording import Recording
from traces.metrics import breakdown, busy_ns, critical_rank, overlap_ns
from traces.timeline import Timeline


@dataclass(frozen=True)
class Difference:
    """Nanoseconds of one thing, simulated and measured; None where one of the two does not have it."""

    name: str
    simulated_ns: int | None
    measured_ns: int | None

    @property
    def cost_ns(self) -> int:
        """What measured takes more (negative: less) than simulated."""
        return (self.measured_ns or 0) - (self.simulated_ns or 0)

    def to_json(self, **more: object) -> dict[str, object]:
        """Plain values, times in seconds."""
        simulated, measured = (None if each is None else each / 1e9 for each in (self.simulated_ns, self.measured_ns))
        return {
            "name": self.name,
            **more,
            "simulated_s": simulated,
            "measured_s": measured,
            "cost_s": self.cost_ns / 1e9,
        }


@dataclass(frozen=True)
class Comparison:
    """What differs.

    Attributes
    ----------
    makespan : of both.
    parts : of the makespan, ranked by cost.
    kinds : number of operations of each kind and phase, simulated and measured.
    operations : aligned, ranked by cost.
    overlap : share of communication that is hidden on the critical rank, simulated and measured; None without any.
    """

    makespan: Difference
    parts: tuple[Difference, ...]
    kinds: dict[str, tuple[int, int]]
    operations: tuple[Difference, ...]
    overlap: tuple[float | None, float | None]

    @property
    def error(self) -> float:
        """(simulated - measured) / measured time."""
        assert self.makespan.measured_ns
        return -self.makespan.cost_ns / self.makespan.measured_ns

    def to_json(self) -> dict[str, object]:
        """Plain values, times in seconds."""
        return {
            "simulated_s": (self.makespan.simulated_ns or 0) / 1e9,
            "measured_s": (self.makespan.measured_ns or 0) / 1e9,
            "error": self.error,
            "overlap": {"simulated": self.overlap[0], "measured": self.overlap[1]},
            "parts": [part.to_json() for part in self.parts],
            "operations": [each.to_json() for each in self.operations],
            "kinds": {name: {"simulated": a, "measured": b} for name, (a, b) in self.kinds.items()},
        }


def compare_timelines(simulated: Timeline, measured: Timeline) -> Comparison:
    """Compare two timelines of the same run.

    Raises
    ------
    InputError
        Where they are of different numbers of ranks, or nothing was measured.
    """
    if simulated.n_ranks != measured.n_ranks:
        raise InputError(
            "simulated and measured run have different numbers of ranks",
            got=f"{simulated.n_ranks} and {measured.n_ranks}", expected="the same run",
        )  # fmt: skip
    if not measured.makespan_ns:
        raise InputError("the measured timeline is empty", expected="rows that take time")
    ranks = critical_rank(simulated), critical_rank(measured)
    parts = _differences(breakdown(simulated, ranks[0]), breakdown(measured, ranks[1]))
    durations = _durations(simulated), _durations(measured)
    kinds = {name: (len(durations[0].get(name, ())), len(durations[1].get(name, ()))) for name in _names(*durations)}
    return Comparison(
        Difference("makespan", simulated.makespan_ns, measured.makespan_ns),
        _ranked(parts),
        kinds,
        _ranked(_aligned(*durations)),
        (_hidden(simulated, ranks[0]), _hidden(measured, ranks[1])),
    )


def select_step(recording: Recording, step: str | None = None) -> Timeline:
    """One step of a recording as a timeline of its own, from the first thing of it that any rank did.

    Parameters
    ----------
    step : its number; None for the fastest of them (that of the shortest window on its slowest rank), or everything
        where no steps are marked.

    Raises
    ------
    InputError
        Where there is no such step.
    """
    steps = _windows_by_step(recording)
    if step is None and not steps:
        return recording.timeline
    if step is None:
        step = min(steps, key=lambda name: max(b - a for a, b in steps[name].values()))
    if step not in steps:
        raise InputError("the trace has no such step", got=step, expected=", ".join(steps) or "none: it marks no steps")
    return _cut(recording.timeline, steps[step])


def describe(comparison: Comparison) -> str:
    """The comparison in a sentence."""
    simulated, measured = (
        format_ns(each or 0) for each in (comparison.makespan.simulated_ns, comparison.makespan.measured_ns)
    )
    top = comparison.parts[0] if comparison.parts else None
    most = f"; most of it: {top.name}, {format_ns(top.cost_ns)}" if top and top.cost_ns else ""
    return f"simulated {simulated}, measured {measured} ({comparison.error:+.1%}){most}"


def _windows_by_step(recording: Recording) -> dict[str, dict[int, tuple[int, int]]]:
    """Steps that all ranks have, with each rank's window."""
    steps: dict[str, dict[int, tuple[int, int]]] = defaultdict(dict)
    for rank, windows in enumerate(recording.windows):
        for window in windows:
            steps[window.name][rank] = window.start_ns, window.end_ns
    return {name: found for name, found in steps.items() if len(found) == recording.timeline.n_ranks}


def _cut(timeline: Timeline, windows: dict[int, tuple[int, int]]) -> Timeline:
    """Rows that begin in their rank's window, on a clock that starts with the first window.

    Where our executor annotated operations only those, from the first on: what is around them is not the schedule's.
    """
    low, high = (np.array([windows[rank][i] for rank in range(timeline.n_ranks)])[timeline.rank] for i in (0, 1))
    keep = (timeline.start_ns >= low) & (timeline.start_ns < high)
    zero = min(start for start, _ in windows.values())
    ours = np.array([info.name.startswith(ANNOTATION_PREFIX) for info in timeline.operations], dtype=bool)
    if (keep & ours[timeline.operation]).any():
        keep &= ours[timeline.operation]
        zero = int(timeline.start_ns[keep].min())
    return Timeline(
        timeline.operations, timeline.lanes, timeline.n_ranks, timeline.start_ns[keep] - zero,
        timeline.end_ns[keep] - zero, timeline.rank[keep], timeline.lane[keep], timeline.operation[keep],
        timeline.bytes[keep], timeline.provenance,
    )  # fmt: skip


def _differences(simulated: dict[str, int], measured: dict[str, int]) -> list[Difference]:
    return [Difference(name, simulated.get(name), measured.get(name)) for name in _names(simulated, measured)]


def _durations(timeline: Timeline) -> dict[str, list[int]]:
    """Of each kind and phase, the mean time over ranks of its operations in order of their start.

    Kernels that one annotated operation of our executor launched are one operation, from the first start to the last
    end.
    """
    part_of = _parts_of_operations(timeline)
    cell = part_of[timeline.operation] * timeline.n_ranks + timeline.rank
    cells, at = np.unique(cell, return_inverse=True)
    start = np.full(len(cells), np.iinfo(np.int64).max)
    end = np.zeros(len(cells), dtype=np.int64)
    np.minimum.at(start, at, timeline.start_ns)
    np.maximum.at(end, at, timeline.end_ns)
    parts, on = np.unique(cells // timeline.n_ranks, return_inverse=True)
    mean = np.bincount(on, weights=end - start) / np.bincount(on) if len(parts) else np.zeros(0)
    first = np.full(len(parts), np.iinfo(np.int64).max)
    np.minimum.at(first, on, start)
    found: dict[str, list[int]] = defaultdict(list)
    for i in np.argsort(first, kind="stable").tolist():
        info = timeline.operations[int(parts[i])]
        if info.category != "host":
            found[f"{info.category}/{info.kind}/{info.phase}"].append(round(mean[i]))
    return found


def _parts_of_operations(timeline: Timeline) -> NDArray[np.int64]:
    """For each operation the first one with its annotation, where it has one of our executor's; else itself."""
    first: dict[tuple[str, str], int] = {}
    part_of = np.arange(len(timeline.operations))
    for info in timeline.operations:
        if info.name.startswith(ANNOTATION_PREFIX):
            part_of[info.id] = first.setdefault((info.name, info.category), info.id)
    return part_of


def _aligned(simulated: dict[str, list[int]], measured: dict[str, list[int]]) -> list[Difference]:
    return [
        Difference(f"{name} {i}", a, b)
        for name in _names(simulated, measured)
        for i, (a, b) in enumerate(zip_longest(simulated.get(name, []), measured.get(name, [])))
    ]


def _names(a: dict[str, object] | dict[str, int] | dict[str, list[int]], b: object) -> list[str]:
    return list(dict.fromkeys([*a, *b]))  # type: ignore[misc]


def _ranked(differences: Sequence[Difference]) -> tuple[Difference, ...]:
    return tuple(sorted(differences, key=lambda each: -abs(each.cost_ns)))


def _hidden(timeline: Timeline, rank: int) -> float | None:
    communication = busy_ns(timeline, rank, "communication")
    return overlap_ns(timeline, rank) / communication if communication else None

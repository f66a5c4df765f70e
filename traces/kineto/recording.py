"""Traces of all ranks as one Timeline, with what the host did beside it.

Time 0 is the first thing that any rank's host or device did; of a simulated trace its own 0. Rows that overlap in a
CUDA stream (programmatic dependent launch lets a kernel begin before its predecessor has ended) are cut where the next
begins; threads of a CPU, where several communications are in flight at once, are split into as many lanes as needed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from traces.errors import InputError
from traces.garbage import collector_paused
from traces.kineto.clocks import Clocks, Span, align_clocks
from traces.kineto.facts import RankTrace, Sync, Wait, Window
from traces.kineto.lanes import Queues, separate_lanes
from traces.kineto.matching import Issued, Key, in_order_of_issue, operation_keys
from traces.kineto.peers import communications
from traces.kineto.rank import read_rank
from traces.launches import Communication, Launches
from traces.timeline import OperationInfo, Timeline

IntArray = NDArray[np.int64]
SUFFIXES = (".json", ".json.gz")


@dataclass(frozen=True, eq=False)
class Recording:
    """What was recorded, on one clock.

    Attributes
    ----------
    timeline : the devices' work; ``provenance["source"]`` names the files.
    launches : when the host issued each row of the timeline.
    windows : for each rank its steps, in order, on the host.
    syncs : for each rank when its host waited for the device, or for a stream: a lane of the timeline.
    waits : for each rank which stream was told to wait, and when; lanes of the timeline instead of streams.
    communication : between whom operations move data, by their id, where all their ranks say it.
    on_device : whether rows ran on GPUs; else they are the CPU's own operators.
    clock_offset_ns : added to each rank's own clock.
    warnings : what was cut, guessed or not understood.
    """

    timeline: Timeline
    launches: Launches
    windows: tuple[tuple[Window, ...], ...]
    syncs: tuple[tuple[Sync, ...], ...]
    waits: tuple[tuple[Wait, ...], ...]
    communication: Mapping[int, Communication]
    on_device: bool
    clock_offset_ns: IntArray
    warnings: tuple[str, ...]


@collector_paused()
def read_recording(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Recording:
    """Read a folder of traces, or the files named: one per rank.

    Raises
    ------
    InputError
        Where there are none, one cannot be read, or two are of the same rank.
    """
    paths = find_traces(source)
    traces = sorted((read_rank(path) for path in paths), key=lambda trace: (_rank_of(trace, paths), str(trace.path)))
    _check_ranks(traces, paths)
    return _combine(traces)


def find_traces(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The trace files of a folder, or those named."""
    named = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    paths = [Path(each) for each in named]
    if len(paths) == 1 and paths[0].is_dir():
        folder = paths[0]
        paths = sorted(each for each in folder.iterdir() if each.name.endswith(SUFFIXES) and each.is_file())
        if not paths:
            raise InputError(f"folder {folder} holds no traces", expected="files *.json or *.json.gz, one per rank")
    return paths


def _rank_of(trace: RankTrace, paths: Sequence[Path]) -> int:
    """As the file says; else by its name, ``...rank3...``; else by its place."""
    if trace.rank is not None:
        return trace.rank
    numbers = re.findall(r"rank[-_]?(\d+)", trace.path.name)
    return int(numbers[-1]) if numbers else paths.index(trace.path)


def _check_ranks(traces: Sequence[RankTrace], paths: Sequence[Path]) -> None:
    of: dict[int, Path] = {}
    for trace in traces:
        rank = _rank_of(trace, paths)
        if rank in of:
            raise InputError(
                f"two traces are of rank {rank}", got=f"{of[rank]} and {trace.path}", expected="one file per rank",
                remedy="name the files of one run",
            )  # fmt: skip
        of[rank] = trace.path
    if len({trace.on_device for trace in traces}) > 1:
        raise InputError("some traces hold GPU kernels and others none", expected="all ranks recorded alike")


def _combine(traces: Sequence[RankTrace]) -> Recording:
    issued = [in_order_of_issue(trace) for trace in traces]
    keys = [list(operation_keys(*each)) for each in zip(traces, issued, strict=True)]
    clocks = _align(traces, [_communication(*each) for each in zip(traces, issued, keys, strict=True)])
    moved_ns = _start_at_zero(traces, clocks)
    lanes = _Names()
    parts = [_columns(*each, lanes) for each in zip(range(len(traces)), traces, issued, moved_ns.tolist(), strict=True)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    on_device = traces[0].on_device
    operation, infos = _operations(traces, issued, keys, columns["start_ns"])
    rank, lane, start_ns, end_ns = (columns[name] for name in ("rank", "lane", "start_ns", "end_ns"))
    separated = separate_lanes(Queues(rank, lane, start_ns, end_ns, lanes.names), keep=on_device)
    timeline = Timeline(
        operations=infos,
        lanes=separated.names,
        n_ranks=len(traces),
        start_ns=start_ns,
        end_ns=separated.end_ns,
        rank=rank.astype(np.int32),
        lane=separated.lane.astype(np.int32),
        operation=operation.astype(np.int32),
        bytes=columns["bytes"],
        provenance={"source": [str(trace.path) for trace in traces], "measured": True},
    )
    return Recording(
        timeline=timeline,
        launches=Launches(columns["launch_start_ns"], columns["launch_end_ns"]),
        windows=tuple(tuple(sorted(t.windows, key=lambda each: each.start_ns)) for t in traces),
        syncs=tuple(tuple(s._replace(stream=_lane(s.stream, t, lanes)) for s in sorted(t.syncs)) for t in traces),
        waits=tuple(tuple(_on_lanes(each, t, lanes) for each in sorted(t.waits)) for t in traces),
        communication=communications(traces, issued, operation),
        on_device=on_device,
        clock_offset_ns=clocks.offset_ns,
        warnings=(*clocks.warnings, *_warnings(traces, separated.cut_ns, keys)),
    )


class _Names:
    """Lanes by name, shared by all ranks."""

    def __init__(self) -> None:
        self._of: dict[str, int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._of)

    def number(self, name: str) -> int:
        return self._of.setdefault(name, len(self._of))


def _communication(trace: RankTrace, issued: Issued, keys: Sequence[Key]) -> dict[object, Span]:
    rows = trace.rows
    return {
        key: Span(rows["start_ns"][row], rows["end_ns"][row])
        for key, row in zip(keys, issued.order.tolist(), strict=True)
        if trace.labels[rows["label"][row]].kind.category == "communication"
    }


def _align(traces: Sequence[RankTrace], communication: Sequence[Mapping[object, Span]]) -> Clocks:
    if all(trace.simulated for trace in traces):
        return Clocks(np.zeros(len(traces), dtype=np.int64), ())
    return align_clocks(communication, [trace.host_name for trace in traces])


def _start_at_zero(traces: Sequence[RankTrace], clocks: Clocks) -> IntArray:
    """Move all traces onto one clock that begins with the first of all; returns by how much each was moved."""
    first = [_first_ns(trace) + offset for trace, offset in zip(traces, clocks.offset_ns.tolist(), strict=True)]
    zero = 0 if all(trace.simulated for trace in traces) else min(first)
    moved_ns = np.asarray(clocks.offset_ns - zero)
    for trace, by_ns in zip(traces, moved_ns.tolist(), strict=True):
        trace.shift(by_ns)
    return moved_ns


def _first_ns(trace: RankTrace) -> int:
    called = trace.launches.find(trace.rows.numpy("correlation"))[0]
    first: list[int] = [min(trace.rows["start_ns"]), *called[called >= 0].tolist()]
    first += [each.start_ns for each in trace.windows] + [each.start_ns for each in trace.syncs]
    return min(first)


def _columns(rank: int, trace: RankTrace, issued: Issued, moved_ns: int, lanes: _Names) -> dict[str, IntArray]:
    """Columns of one rank in order of issue; launches without a time stay at -1."""
    used, lane = np.unique(trace.rows.numpy("lane")[issued.order], return_inverse=True)
    number = np.array([lanes.number(trace.lanes[each]) for each in used.tolist()], dtype=np.int64)
    columns = {name: trace.rows.numpy(name)[issued.order] for name in ("start_ns", "end_ns", "bytes")}
    for name in ("launch_start_ns", "launch_end_ns"):
        times = getattr(issued, name)[issued.order]
        columns[name] = np.where(times >= 0, times + moved_ns, -1)
    return {**columns, "lane": number[lane], "rank": np.full(len(issued.order), rank)}


def _operations(
    traces: Sequence[RankTrace], issued: Sequence[Issued], keys: Sequence[Sequence[Key]], start_ns: IntArray
) -> tuple[IntArray, tuple[OperationInfo, ...]]:
    """Number the operations in order of their first start; name each as the rank that starts it first does."""
    first: dict[Key, tuple[int, int, int]] = {}
    flat = ((rank, place, key) for rank, each in enumerate(keys) for place, key in enumerate(each))
    for time_ns, (rank, place, key) in zip(start_ns.tolist(), flat, strict=True):
        if key not in first or time_ns < first[key][0]:
            first[key] = (time_ns, rank, place)
    ordered = sorted(first.items(), key=lambda item: item[1])
    number = {key: i for i, (key, _) in enumerate(ordered)}
    infos = [_info(i, traces[rank], issued[rank], place) for i, (_, (_, rank, place)) in enumerate(ordered)]
    return np.array([number[key] for each in keys for key in each], dtype=np.int64), tuple(infos)


def _info(number: int, trace: RankTrace, issued: Issued, place: int) -> OperationInfo:
    label = trace.labels[trace.rows["label"][int(issued.order[place])]]
    phase = issued.phase[place].replace("/", "_")
    return OperationInfo(number, label.name, label.kind.kind, phase, issued.step[place], label.kind.category)


def _on_lanes(wait: Wait, trace: RankTrace, lanes: _Names) -> Wait:
    return wait._replace(stream=_lane(wait.stream, trace, lanes), source=_lane(wait.source, trace, lanes))


def _lane(stream: int, trace: RankTrace, lanes: _Names) -> int:
    """The timeline's lane of a stream; -1 where nothing ran on it, or for all streams."""
    local = trace.stream_lanes.get(stream)
    return -1 if local is None else lanes.number(trace.lanes[local])


def _warnings(traces: Sequence[RankTrace], cut_ns: int, keys: Sequence[Sequence[Key]]) -> list[str]:
    found = []
    if cut_ns:
        found.append(f"rows that overlap in a stream are cut by {cut_ns} ns in all")
    world = max(trace.world_size for trace in traces)
    if world > len(traces):
        found.append(f"{len(traces)} of {world} ranks are here: who waits for the others is unknown")
    counts = [sum(key[0] == "communication" for key in each) for each in keys]
    if len(set(counts)) > 1:
        found.append(f"ranks ran {min(counts)} to {max(counts)} communications: some may be matched wrongly")
    return found

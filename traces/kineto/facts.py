"""What a rank's trace file says, as columns of numbers and few names; times are nanoseconds on the rank's own clock."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from traces.kineto.classify import Kind

IntArray = NDArray[np.int64]


class Peers(NamedTuple):
    """Between whom a communication moves data, as its arguments say it: "" and -1 where they do not."""

    ranks: str = ""
    to: int = -1
    source: int = -1


class Label(NamedTuple):
    """What rows have in common; group, phase and step as the file itself says them ("" and -1: it does not)."""

    name: str
    kind: Kind
    group: str = ""
    phase: str = ""
    step: int = -1
    peers: Peers = Peers()


class Window(NamedTuple):
    """A step or a phase on the host's clock."""

    name: str
    start_ns: int
    end_ns: int


class Sync(NamedTuple):
    """The host waits for a stream, or (-1) for the device."""

    start_ns: int
    end_ns: int
    stream: int


class Wait(NamedTuple):
    """At ``host_ns`` the host told a stream to wait for another's work: for what it had issued until ``recorded_ns``.

    Source and ``recorded_ns`` are -1 where the trace does not say them.
    """

    host_ns: int
    stream: int
    source: int
    recorded_ns: int = -1


class Columns:
    """Rows that grow: start, end, lane, label, bytes, correlation, operation."""

    NAMES = ("start_ns", "end_ns", "lane", "label", "bytes", "correlation", "operation")

    def __init__(self) -> None:
        self.of = {name: array("q") for name in self.NAMES}

    def append(self, *values: int) -> None:
        """One row."""
        for name, value in zip(self.NAMES, values, strict=True):
            self.of[name].append(value)

    def numpy(self, name: str) -> IntArray:
        """A column as an array that shares its memory; the column cannot grow while it is used."""
        return np.frombuffer(self.of[name], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.of["start_ns"])

    def __getitem__(self, name: str) -> array[int]:
        return self.of[name]


class Calls:
    """Start and end of the host's calls, by their correlation: arrays, as there are as many as rows."""

    def __init__(self) -> None:
        self._columns = array("q"), array("q"), array("q")
        self._order: NDArray[np.intp] | None = None

    def add(self, correlation: int, span_ns: tuple[int, int]) -> None:
        """One call; of several with one correlation the last counts."""
        for column, value in zip(self._columns, (correlation, *span_ns), strict=True):
            column.append(value)
        self._order = None

    def find(self, correlation: IntArray) -> tuple[IntArray, IntArray]:
        """Starts and ends, nanoseconds; -1 where there is no such call."""
        known, start, end = (np.frombuffer(column, dtype=np.int64) for column in self._columns)
        if self._order is None:
            self._order = np.argsort(known, kind="stable")
        if not len(known):
            return np.full(len(correlation), -1), np.full(len(correlation), -1)
        at = self._order[np.maximum(np.searchsorted(known, correlation, side="right", sorter=self._order) - 1, 0)]
        found = known[at] == correlation
        return np.where(found, start[at], -1), np.where(found, end[at], -1)

    def shift(self, by_ns: int) -> None:
        """Move them in time."""
        for column in self._columns[1:]:
            times = np.frombuffer(column, dtype=np.int64)
            times += by_ns


@dataclass
class RankTrace:
    """What a trace file says of its rank.

    Attributes
    ----------
    rank : as the file says; None where it does not.
    on_device : whether GPUs did the work, else the CPU's threads.
    simulated : whether attnsim wrote it: its clock is then everyone's.
    rows : the device's work.
    lanes : number of each lane, by (process, thread) or stream, and their names.
    launches : the host's calls that launched rows.
    windows, phases, operations : the host's annotations: steps, phases, and operations of our executor.
    skipped : events that were not understood, by category.
    """

    path: Path
    rank: int | None = None
    world_size: int = 1
    host_name: str = ""
    on_device: bool = False
    simulated: bool = False
    rows: Columns = field(default_factory=Columns)
    labels: list[Label] = field(default_factory=list)
    lanes: list[str] = field(default_factory=list)
    launches: Calls = field(default_factory=Calls)
    windows: list[Window] = field(default_factory=list)
    phases: list[Window] = field(default_factory=list)
    operations: list[Window] = field(default_factory=list)
    syncs: list[Sync] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    stream_lanes: dict[int, int] = field(default_factory=dict)

    def shift(self, by_ns: int) -> None:
        """Move everything in time."""
        for name in ("start_ns", "end_ns"):
            column = self.rows.numpy(name)
            column += by_ns
        self.launches.shift(by_ns)
        self.windows = [Window(name, start + by_ns, end + by_ns) for name, start, end in self.windows]
        self.phases = [Window(name, start + by_ns, end + by_ns) for name, start, end in self.phases]
        self.operations = [Window(name, start + by_ns, end + by_ns) for name, start, end in self.operations]
        self.syncs = [Sync(start + by_ns, end + by_ns, stream) for start, end, stream in self.syncs]
        self.waits = [
            Wait(host + by_ns, stream, source, recorded + by_ns if recorded >= 0 else -1)
            for host, stream, source, recorded in self.waits
        ]

"""What lies beside a Timeline: when the host issued its rows, who communicated with whom, and memory over time.

A Timeline says what ran when. Traces for other tools also show why it ran no earlier (the host's launch), between
whom data moved, and what was in use; the simulator knows these of its Programs, a reader of what it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from traces.errors import InputError

IntArray = NDArray[np.int64]
UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class Launches:
    """The host's calls: start and end for each row of a timeline, nanoseconds on its clock; -1 where unknown."""

    start_ns: IntArray
    end_ns: IntArray

    def __post_init__(self) -> None:
        if self.start_ns.shape != self.end_ns.shape or self.start_ns.ndim != 1:
            raise InputError("launches differ in length", got=f"{self.start_ns.shape} and {self.end_ns.shape}")

    @staticmethod
    def none(rows: int) -> Launches:
        """Launches of which nothing is known."""
        return Launches(np.full(rows, UNKNOWN), np.full(rows, UNKNOWN))


@dataclass(frozen=True, eq=False)
class Communication:
    """Between whom an operation moves data, columns over ranks.

    Attributes
    ----------
    group_name : of the process group.
    group : number of the group that each rank is in.
    bytes_in, bytes_out : a rank's input and output.
    to, source : of an exchange, whom each rank sends to and receives from.
    """

    group_name: str
    group: IntArray
    bytes_in: IntArray
    bytes_out: IntArray
    to: IntArray | None = None
    source: IntArray | None = None

    def members(self, rank: int) -> list[int]:
        """The ranks of a rank's group."""
        members: list[int] = np.flatnonzero(self.group == self.group[rank]).tolist()
        return members


@dataclass(frozen=True, eq=False)
class MemoryCurve:
    """Bytes in use after each change: columns over changes, in order of time within each rank."""

    rank: IntArray
    time_ns: IntArray
    bytes: IntArray


@dataclass(frozen=True, eq=False)
class LaneWaits:
    """When hosts told a lane to wait for a row of another: columns over waits; ``row`` and ``source`` are rows.

    The lane is that of ``row``, which is the first to wait.
    """

    host_ns: IntArray
    row: IntArray
    source: IntArray


@dataclass(frozen=True, eq=False)
class TraceDetails:
    """What a trace shows beside the timeline; each part may be missing.

    Attributes
    ----------
    communication : of the operations of a timeline, by their id.
    """

    launches: Launches | None = None
    communication: Mapping[int, Communication] = field(default_factory=dict)
    memory: MemoryCurve | None = None
    waits: LaneWaits | None = None

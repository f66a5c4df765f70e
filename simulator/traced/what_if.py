"""What if: a traced Program with other costs.

    device_ns = gap + work / speed(kind, rank)           speed 1 as measured; a GPU's gaps stay as they are
    host_ns   = host / speed of the host                 so are the gaps between a CPU's own operators

Communication's work is divided by the speed of the links. Another GPU changes attention by the ratio of peak times
efficiency (of the default kernels, at head dim 128), products by that of peak times efficiency, and everything else by
that of memory bandwidth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cost_models.hardware import HardwareProfile
from simulator.engines.maxplus import MaxPlus
from simulator.engines.rows import Rows
from simulator.program.operations import Operation
from simulator.traced.program import TracedProgram, build_traced_program
from traces.errors import InputError
from traces.garbage import collector_paused
from traces.kineto.recording import Recording
from traces.timeline import Timeline

IntArray = NDArray[np.int64]
HEAD_DIM = 128


@dataclass(frozen=True)
class Changes:
    """What is different.

    Attributes
    ----------
    link, host : how many times faster communication is, and the host.
    compute : how many times faster operations of a kind are; ``*`` stands for kinds not named.
    slow_ranks : how many times slower a rank computes.
    overlap : ``recorded``, ``none`` or ``full``.
    """

    link: float = 1.0
    host: float = 1.0
    compute: Mapping[str, float] = field(default_factory=dict)
    slow_ranks: Mapping[int, float] = field(default_factory=dict)
    overlap: str = "recorded"

    def __post_init__(self) -> None:
        slow = {f"rank {rank}": factor for rank, factor in self.slow_ranks.items()}
        for name, speed in {"link": self.link, "host": self.host, **self.compute, **slow}.items():
            if not 0 < speed < float("inf"):
                raise InputError(f"factor of {name}", got=speed, expected="a positive number")


@dataclass(frozen=True)
class WhatIf:
    """What would be, beside what was.

    Attributes
    ----------
    measured_ns, unchanged_ns, changed_ns : makespan as measured, as simulated without and with the changes.
    timeline : simulated, with the changes.
    """

    measured_ns: int
    unchanged_ns: int
    changed_ns: int
    timeline: Timeline
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Plain values, times in seconds."""
        return {
            "measured_s": self.measured_ns / 1e9,
            "unchanged_s": self.unchanged_ns / 1e9,
            "changed_s": self.changed_ns / 1e9,
            "reproduction_error": self.unchanged_ns / self.measured_ns - 1,
            "speedup": self.unchanged_ns / self.changed_ns,
            "warnings": list(self.warnings),
        }


class TracedCosts:
    """Measured times, changed."""

    def __init__(self, traced: TracedProgram, changes: Changes) -> None:
        self._times, self._changes, self._on_device = traced.times, changes, traced.on_device
        self._slow = np.ones(traced.program.setup.n_ranks)
        for rank, factor in changes.slow_ranks.items():
            self._slow[rank] = factor

    def host_ns(self, operation: Operation) -> IntArray:
        """Time between the issue before it and its own."""
        return _scaled(self._times[operation.id].host_ns, 1 / self._changes.host)

    def device_ns(self, operation: Operation) -> IntArray:
        """Its gap, and its work at another speed."""
        times, changes = self._times[operation.id], self._changes
        gap_ns = times.gap_ns if self._on_device else _scaled(times.gap_ns, 1 / changes.host)
        if operation.category in ("communication", "host"):
            speed = changes.link if operation.category == "communication" else changes.host
            return gap_ns + _scaled(times.work_ns, 1 / speed)
        speed = changes.compute.get(operation.kind, changes.compute.get("*", 1.0))
        return gap_ns + _scaled(times.work_ns, self._slow / speed)


def ask(recording: Recording, changes: Changes) -> WhatIf:
    """Simulate a recording unchanged and changed.

    Raises
    ------
    InputError
        Where a rank is not there.
    """
    for rank in changes.slow_ranks:
        recording.timeline.check_rank(rank)
    traced = build_traced_program(recording)
    unchanged = simulate_traced(traced, Changes())
    other = traced if changes.overlap == "recorded" else build_traced_program(recording, changes.overlap)
    changed = simulate_traced(other, changes)
    ends = [device_end_ns(each) for each in (recording.timeline, unchanged, changed)]
    return WhatIf(ends[0], ends[1], ends[2], changed, tuple(_warnings(recording, traced)))


def ask_program(traced: TracedProgram, changes: Changes) -> WhatIf:
    """Simulate a Program that was never measured (of Chakra traces) unchanged and changed.

    Raises
    ------
    InputError
        Where a rank is not there, or overlap is to change.
    """
    if changes.overlap != "recorded":
        raise InputError("overlap of Chakra traces cannot change", got=changes.overlap, expected="recorded")
    unchanged = simulate_traced(traced, Changes())
    for rank in changes.slow_ranks:
        unchanged.check_rank(rank)
    changed = simulate_traced(traced, changes)
    before, after = (device_end_ns(each) for each in (unchanged, changed))
    return WhatIf(before, before, after, changed, ())


def device_end_ns(timeline: Timeline) -> int:
    """When the last row ends that is not the host's."""
    device = np.array([info.category != "host" for info in timeline.operations], dtype=bool)
    return int(timeline.end_ns[device[timeline.operation]].max(initial=0))


@collector_paused()
def simulate_traced(traced: TracedProgram, changes: Changes) -> Timeline:
    """When everything happens."""
    n = traced.program.setup.n_ranks
    rows = Rows(n)
    traced.program.replay(MaxPlus(n, TracedCosts(traced, changes), rows))
    return rows.timeline({"engine": "maxplus", "what_if": True})


def gpu_speeds(recorded: HardwareProfile, other: HardwareProfile, dtype: str = "bf16") -> dict[str, float]:
    """How many times faster another GPU is, by kind of operation."""

    def rate(profile: HardwareProfile, direction: str) -> float:
        curve = profile.kernels[profile.default_kernel].direction(direction)
        return profile.peak(dtype) * curve.efficiency_at(HEAD_DIM)

    def gemm_rate(profile: HardwareProfile) -> float:
        return profile.peak(dtype) * profile.gemm.efficiency

    speeds = {f"attention_{way}": rate(other, way) / rate(recorded, way) for way in ("forward", "backward")}
    memory = other.hbm_bytes_per_s / recorded.hbm_bytes_per_s
    return {**speeds, "gemm": gemm_rate(other) / gemm_rate(recorded), "*": memory}


def _scaled(times_ns: IntArray, factor: float | NDArray[np.float64]) -> IntArray:
    return np.asarray(np.rint(times_ns * factor), dtype=np.int64)


def _warnings(recording: Recording, traced: TracedProgram) -> list[str]:
    found = list(recording.warnings)
    if traced.inferred_waits or (not any(recording.waits) and len(recording.timeline.lanes) > 1):
        found.append(
            f"the trace records no waits between streams: {traced.inferred_waits} were inferred from gaps, "
            "hidden ones are unknown (record with enable_cuda_sync_events)"
        )
    if traced.contradicted_ns:
        found.append(f"rows began {traced.contradicted_ns} ns, in all, before what the rules say they wait for")
    return found

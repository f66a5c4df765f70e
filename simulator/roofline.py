"""Kernels of a run against the GPU's ceilings: arithmetic intensity, and the rate that each reaches.

    intensity = FLOP / bytes,    ceiling = min(peak, intensity x memory bandwidth)

FLOP are those of matrix products and stencils; bytes the least that a kernel moves to and from memory; times those of
kernels alone. A kernel that makes no products has no intensity: it is told by its bytes alone.
Source: Williams, Waterman, Patterson 2009, Roofline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from cost_models.hardware import HardwareProfile
from simulator.contended import ContendedCosts
from simulator.program.operations import COMPUTE, Attention, Column, Gemm, Operation, Stencil
from simulator.program.tape import Ignore


@dataclass(frozen=True)
class Kernel:
    """Kernels of a rank that do the same work: FLOP, bytes and time of one, and how many there are."""

    kind: str
    phase: str
    flop: int
    bytes: int
    time_ns: int
    count: int


class Roofline(NamedTuple):
    """The ceilings of a GPU, and the kernels of one of its ranks under them."""

    peak_flop_per_s: float
    memory_bytes_per_s: float
    kernels: tuple[Kernel, ...]


class Kernels(Ignore):
    """A sink that collects the kernels of one rank.

    Parameters
    ----------
    costs : know time and traffic of a kernel.
    rank : the rank.
    """

    def __init__(self, costs: ContendedCosts, rank: int) -> None:
        self._costs, self._rank = costs, rank
        self._counts: dict[tuple[str, str, int, int, int], int] = {}

    def operation(self, operation: Operation) -> None:
        """Count a kernel."""
        if operation.lane != COMPUTE or (operation.ranks is not None and not operation.ranks[self._rank]):
            return
        columns = (kernel_flop(operation), self._costs.traffic_bytes(operation), self._costs.device_ns(operation))
        flop, moved, time_ns = (self._own(column) for column in columns)
        if time_ns:
            key = operation.kind, operation.phase, flop, moved, time_ns
            self._counts[key] = self._counts.get(key, 0) + 1

    def roofline(self, profile: HardwareProfile, dtype: str) -> Roofline:
        """What was collected, under the GPU's ceilings."""
        kernels = tuple(Kernel(*key, count) for key, count in self._counts.items())
        return Roofline(profile.peak(dtype), profile.hbm_bytes_per_s, kernels)

    def _own(self, column: Column) -> int:
        return column if isinstance(column, int) else int(column[self._rank])


def kernel_flop(operation: Operation) -> Column:
    """FLOP of a kernel's products, on each rank."""
    work = operation.work
    if isinstance(work, Attention):
        forward = 2 * (work.head_dim + work.v_head_dim) * work.heads * work.batch * work.lowering.pairs
        return forward if work.direction == "forward" else forward * 5 // 2
    if isinstance(work, Gemm):
        return sum(2 * work.m * n * k for n, k in work.shapes)
    return work.flop if isinstance(work, Stencil) else 0

"""The GPUs of a discrete-event run: who runs on each, and how fast (the law is `interference`'s).

Every change on a GPU (a kernel or communication starts or ends, data begin or cease to move) gives the flows on it new
ceilings. A transfer is as slow as the slowest GPU at its ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from simulator.engines.flows import Flow
from simulator.engines.fluid import Network


@dataclass(slots=True)
class Kernel:
    """A kernel under way: its flow, memory traffic in bytes per second alone, and slowdown by SMs taken."""

    flow: Flow
    traffic: float
    slowdown: Callable[[int], float]


@dataclass(slots=True)
class _Device:
    kernel: Kernel | None = None
    taken: int = 0
    moving: dict[Flow, float] = field(default_factory=dict)
    stretch: float = 1.0


class Devices:
    """All GPUs.

    Parameters
    ----------
    n_ranks : their number.
    network : has the flows.
    memory_bytes_per_s : what a GPU's memory sustains.
    """

    def __init__(self, n_ranks: int, network: Network, memory_bytes_per_s: float) -> None:
        self._network, self._memory = network, memory_bytes_per_s
        self._devices = [_Device() for _ in range(n_ranks)]
        self._ranks_of: dict[Flow, Sequence[int]] = {}

    def start_kernel(self, rank: int, kernel: Kernel) -> None:
        """A kernel starts."""
        self._devices[rank].kernel = kernel
        self._refresh(rank)

    def end_kernel(self, rank: int) -> None:
        """The kernel has ended."""
        self._devices[rank].kernel = None
        self._refresh(rank)

    def take(self, rank: int, sms: int) -> None:
        """Communication holds so many multiprocessors more (or fewer, below zero)."""
        if sms:
            self._devices[rank].taken += sms
            self._refresh(rank)

    def move(self, flow: Flow, traffic: Sequence[tuple[int, float]]) -> None:
        """Data begin to move, with so much memory traffic (bytes per second alone) on each of these ranks."""
        self._ranks_of[flow] = [rank for rank, _ in traffic]
        for rank, rate in traffic:
            self._devices[rank].moving[flow] = rate
        for rank, _ in traffic:
            self._refresh(rank)

    def rest(self, flow: Flow) -> None:
        """Data have arrived."""
        ranks = self._ranks_of.pop(flow)
        for rank in ranks:
            del self._devices[rank].moving[flow]
        for rank in ranks:
            self._refresh(rank)

    def _refresh(self, rank: int) -> None:
        device = self._devices[rank]
        kernel = device.kernel
        wanted = sum(device.moving.values()) + (kernel.traffic if kernel else 0.0)
        device.stretch = max(1.0, wanted / self._memory)
        if kernel is not None:
            self._network.limit(kernel.flow, 1.0 / max(kernel.slowdown(device.taken), device.stretch))
        for flow in device.moving:
            slowest = max([self._devices[each].stretch for each in self._ranks_of[flow]])
            self._network.limit(flow, flow.ask.ceiling / slowest)

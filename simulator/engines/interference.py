"""What work on one GPU takes from other work there: multiprocessors and memory bandwidth.

Communication holds its channels' multiprocessors from its start to its end, also while it waits for its peer, and a
kernel beside it has the rest: it goes d / d_s as fast, where d is its time alone and d_s its time with s SMs less,
waves counted anew. Memory is shared in proportion to what is asked: where kernel and communication together want u > 1
times what memory sustains, all of them go 1 / u as fast,

    u = max(1, sum of traffic_i / time_i / memory rate),   kernel: min(d / d_s, 1 / u),   communication: 1 / u,

no traffic_i / time_i more than the memory rate. Beside attention communication keeps a measured share of that besides
(`InterferenceTerms.communication_share`). A transfer is as slow as the slower of its ends, a collective as its
slowest rank.

Communication gets its SMs when a running kernel has handed out its last blocks: a multiprocessor that becomes free
goes to the blocks of the kernel that was there first. A kernel of the compute lane that may start at the same time as
communication is first, as NCCL's stream waits for an event where the compute stream goes on by itself. Where software
sees to it that communication is first (``communication_first``), it gets its SMs at once.
Source: NVIDIA/nccl issues 689 (a channel keeps its SM), 1433 (both slow down through memory bandwidth); of waiting see
`cost_models.hardware.interference`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from simulator.engines.costs import Costs
from simulator.program.operations import Column, Operation


class SharedCosts(Costs, Protocol):
    """Prices that tell what an operation takes from others on its GPU."""

    @property
    def memory_bytes_per_s(self) -> float:
        """What a GPU's memory sustains."""

    @property
    def communication_first(self) -> bool:
        """Whether communication gets its multiprocessors before the blocks of kernels that run already."""

    def sms(self, operation: Operation) -> Column:
        """Multiprocessors that communication keeps from kernels, on each rank."""

    def traffic_bytes(self, operation: Operation) -> Column:
        """Bytes to and from the GPU's memory, on each rank."""

    def slower_ns(self, operation: Operation, taken: int) -> Column:
        """Time of a kernel alone with so many multiprocessors less."""

    def leaves(self, operation: Operation) -> float:
        """Share of its rate that communication keeps beside a kernel."""

    def handing(self, operation: Operation, rank: int) -> Sequence[tuple[float, float]]:
        """When its kernels hand out blocks on a rank: (from, until) in order, as shares of its time alone."""

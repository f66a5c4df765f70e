"""Prices of operations that run beside others on one GPU: multiprocessors held, memory traffic, kernels with fewer SMs.

An attention kernel or GEMM on fewer multiprocessors is priced as on a GPU that has so many (`CostModel` of
``profile.with_fewer_sms``): waves are counted anew. Memory-bound kernels keep their time, as few SMs saturate memory.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from cost_models.hardware import HardwareProfile
from cost_models.kernels import (
    ALL_THE_TIME,
    LEAST_WRITTEN_BYTES,
    Handing,
    attention_bytes,
    attention_handing,
    gemm_handing,
)
from cost_models.masks import Lowering
from cost_models.network.occupancy import Occupancy, collective_occupancy, exchange_occupancy
from cost_models.topology import ClusterTopology
from cost_models.units import dtype_bytes
from simulator.costing import CostModel
from simulator.engines.sharing import transfer_key
from simulator.kernel_costs import attention_shape, gemm_sizes
from simulator.network_costs import group_numbers
from simulator.prices import shared_prices
from simulator.program.operations import (
    Attention,
    Collective,
    Column,
    Elementwise,
    Exchange,
    Gemm,
    HostCopy,
    Operation,
    Stencil,
    Transfer,
)


class ContendedCosts(CostModel):
    """Costs of operations, alone and beside others.

    Attributes
    ----------
    memory_bytes_per_s : what the GPU's memory sustains.
    communication_first : whether communication gets its multiprocessors before the blocks of running kernels.
    """

    def __init__(self, topology: ClusterTopology, profile: HardwareProfile, kernel: str) -> None:
        super().__init__(topology, profile, kernel, prices=shared_prices(topology, profile, kernel))
        self.communication_first = profile.interference.communication_first
        self.memory_bytes_per_s = profile.hbm_bytes_per_s * profile.elementwise.efficiency["copy"]
        linked = topology.n_ranks > 1 and topology.route(0, 1).kind == "nvlink"
        self._left = profile.interference.communication_share if linked else {}
        self._with_fewer: dict[int, CostModel] = {}
        self._handing: dict[Hashable, Handing] = {}

    def slower_ns(self, operation: Operation, taken: int) -> Column:
        """Time of a kernel alone, on a GPU that has ``taken`` multiprocessors less; never less than with all of them.

        Where dispatch is simulated, blocks may fall a few per cent better on fewer; that is the model's, not the GPU's.
        """
        if not taken or not isinstance(operation.work, Attention | Gemm):
            return self.device_ns(operation)
        if taken not in self._with_fewer:
            fewer = self._profile.with_fewer_sms(taken)
            self._with_fewer[taken] = CostModel(self._topology, fewer, self._kernel, self._worked)
        fewer_ns, all_ns = self._with_fewer[taken].device_ns(operation), self.device_ns(operation)
        if isinstance(fewer_ns, int) and isinstance(all_ns, int):
            return max(fewer_ns, all_ns)
        return np.maximum(fewer_ns, all_ns)

    def sms(self, operation: Operation) -> Column:
        """Multiprocessors that communication keeps from kernels, on each rank; of a kernel none."""
        occupied = self._occupancy(operation)
        return occupied.sms if occupied else 0

    def traffic_bytes(self, operation: Operation) -> Column:
        """Bytes to and from the GPU's memory, on each rank."""
        work = operation.work
        if isinstance(work, Attention):
            return self._attention_bytes(work)
        if isinstance(work, Elementwise):
            return self._elementwise_bytes(work)
        if isinstance(work, HostCopy):
            return work.bytes
        if isinstance(work, Gemm):
            size = dtype_bytes(work.dtype)
            written = max(size, LEAST_WRITTEN_BYTES)
            return sum(
                [work.m * (n * written + k * size) + work.planes * n * k * size for n, k in work.shapes], start=0
            )
        if isinstance(work, Stencil):
            return work.bytes_read + work.bytes_written
        occupied = self._occupancy(operation)
        return occupied.traffic_bytes.astype(np.int64) if occupied else 0

    def leaves(self, operation: Operation) -> float:
        """Share of its rate that communication keeps beside a kernel."""
        if not isinstance(operation.work, Attention):
            return 1.0
        return self._left.get(f"{self._kernel}_{operation.work.direction}", 1.0)

    def handing(self, operation: Operation, rank: int) -> Handing:
        """When an operation's kernels hand out blocks on a rank."""
        work = operation.work
        if isinstance(work, Attention):
            key: Hashable = (id(work.lowering.table), int(work.lowering.index[rank]), work.direction,
                             attention_shape(work), work.precomputed_delta)  # fmt: skip
        elif isinstance(work, Gemm):
            key = (_on(work.m, rank), _on(work.planes, rank), work.shapes, work.dtype, work.weight_bits, work.over_rows)
        else:
            return ALL_THE_TIME
        if key not in self._handing:
            self._handing[key] = self._find_handing(work, rank)
        return self._handing[key]

    def _find_handing(self, work: Attention | Gemm, rank: int) -> Handing:
        if isinstance(work, Attention):
            times = self._times(self._kernel, attention_shape(work), work.direction, work.precomputed_delta)
            return attention_handing(times, work.lowering.of(rank).calls)
        sizes = gemm_sizes(work, _on(work.m, rank))
        return gemm_handing(self._profile, sizes, work.dtype, work.weight_bits, _on(work.planes, rank))

    def _attention_bytes(self, work: Attention) -> Column:
        shape, direction = attention_shape(work), work.direction

        def size(lowering: Lowering, _: int) -> int:
            return round(attention_bytes(lowering.calls, shape, direction))

        return self._prices.per_lowering(("bytes", shape, direction), work.lowering, size)

    def _elementwise_bytes(self, work: Elementwise) -> Column:
        moved = work.bytes_read + work.bytes_written
        return moved if work.lowering is None else moved * work.lowering.gather(work.lowering.table.covered(work.side))

    def _occupancy(self, operation: Operation) -> Occupancy | None:
        work = operation.work
        if not isinstance(work, Exchange | Collective):
            return None
        key, known = _occupancy_key(work), self._prices.occupied
        if key not in known:
            found = self._exchange_occupancy(work) if isinstance(work, Exchange) else self._collective_occupancy(work)
            known[key] = found
        return known[key]

    def _exchange_occupancy(self, work: Exchange) -> Occupancy:
        return exchange_occupancy(self._topology, self._profile, work.ring.to, work.bytes, work.largest)

    def _collective_occupancy(self, work: Collective) -> Occupancy:
        n_ranks = self._topology.n_ranks
        if isinstance(work, Transfer):
            return exchange_occupancy(self._topology, self._profile, work.to, work.bytes)
        groups, sms, traffic = group_numbers(work, n_ranks), np.zeros(n_ranks, np.int64), np.zeros(n_ranks)
        sent, size = (np.broadcast_to(np.asarray(each), n_ranks) for each in (work.bytes_sent, work.bytes))
        kind = "all_to_all" if work.splits is not None else work.collective
        for group in np.unique(groups):
            ranks = np.flatnonzero(groups == group)
            amounts = float(size[ranks].max()), float(sent[ranks].max())
            found = collective_occupancy(self._topology, self._profile, kind, ranks, *amounts)
            sms[ranks], traffic[ranks] = found
        return Occupancy(sms, traffic)


def _on(column: Column, rank: int) -> int:
    return column if isinstance(column, int) else int(column[rank])


def _occupancy_key(work: Exchange | Collective) -> Hashable:
    """Equal where the same is occupied, in whichever Program."""
    key = transfer_key(work)
    if isinstance(work, Exchange):
        return work.ring.to.tobytes(), *key[1:]
    return *key, np.asarray(work.bytes_sent).tobytes()

"""Prices operations: what they are (`simulator.program.operations`) to how long they take, in integer nanoseconds.

    device_ns = round(1e9 seconds),  seconds by `cost_models.kernels` and `cost_models.network`
    host_ns   = launches x launch_s, or what issuing an exchange or a collective takes

Rounding happens here and nowhere else. Every distinct shape is priced once: attention per distinct lowering, transfers
per ring and size.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cost_models.hardware import HardwareProfile
from cost_models.kernels import (
    AttentionShape,
    attention_launches,
    attention_workspace_bytes,
    estimate_calls_s,
    estimate_elementwise_s,
    estimate_gemm_s,
    estimate_stencil_s,
    launches_of,
)
from cost_models.masks import Lowering
from cost_models.network import (
    Demand,
    collective_demand,
    estimate_collective_s,
    estimate_exchange_s,
    estimate_host_copy_s,
    exchange_demands,
)
from cost_models.topology import ClusterTopology
from simulator.program.lowered import LoweringColumn, LoweringSet
from simulator.program.operations import (
    PROPAGATION,
    Attention,
    Collective,
    Column,
    Elementwise,
    Exchange,
    Gemm,
    HostCopy,
    IntArray,
    Operation,
    Stencil,
    Transfer,
)
from simulator.worked import Worked

FloatArray = NDArray[np.float64]

MOST_KEYED = 512
"""Ranks up to which exchanges are told by who sends to whom, and prices of uneven ones are kept."""


class Prices:
    """What has been priced for a topology, a profile and a kernel; cost models of these may share it."""

    def __init__(self) -> None:
        self.of: dict[Hashable, Column] = {}
        self.tables: dict[Hashable, tuple[LoweringSet, IntArray]] = {}


_SHARED: dict[tuple[int, int, str], tuple[ClusterTopology, HardwareProfile, Prices]] = {}
MOST_SHARED = 8
MOST_PRICES = 100_000


def shared_prices(topology: ClusterTopology, profile: HardwareProfile, kernel: str) -> Prices:
    """One and the same for these objects, as long as they are among the last few asked for."""
    key = id(topology), id(profile), kernel
    found = _SHARED.pop(key, None)
    if found is None or len(found[2].of) + len(found[2].tables) > MOST_PRICES:
        found = topology, profile, Prices()
    _SHARED[key] = found  # kept with its objects, so that an id names one of each only
    while len(_SHARED) > MOST_SHARED:
        del _SHARED[next(iter(_SHARED))]
    return found[2]


class CostModel:
    """Costs of operations on a cluster.

    Parameters
    ----------
    topology : where the ranks are.
    profile : the GPU.
    kernel : attention kernel, as in ``profile.kernels``.
    worked : how long GPUs have worked before an operation; default counted from the operations priced.
    prices : of the same topology, profile and kernel, to use and to add to.
    """

    def __init__(
        self, topology: ClusterTopology, profile: HardwareProfile, kernel: str, worked: Worked | None = None,
        prices: Prices | None = None,
    ) -> None:  # fmt: skip
        self._topology, self._profile, self._kernel = topology, profile, kernel
        self._worked, self._counts = worked or Worked(), worked is None
        prices = prices or Prices()
        self._priced, self._tables = prices.of, prices.tables
        self._of_splits: dict[Hashable, tuple[IntArray, Column]] = {}  # with the matrix, so that an id names one only
        host = profile.host
        self._kernel_ns, self._exchange_ns, self._collective_ns, self._graph_ns, self._node_ns = map(
            to_ns, (host.kernel_s, host.exchange_s, host.collective_s, host.graph_s, host.graph_node_s)
        )

    def host_ns(self, operation: Operation) -> Column:
        """Time the host needs to issue an operation, on each rank."""
        work = operation.work
        if operation.kind == PROPAGATION:
            return 0
        if "graphed" in operation.options:
            return cast(IntArray, operation.options["graphed"]) * self._graph_ns + self._node_ns
        if isinstance(work, Exchange):
            return self._exchange_ns
        if isinstance(work, Collective):
            return self._collective_ns
        if isinstance(work, Attention):
            return self._launches(work) * self._attention_host_ns(work)
        return self._kernel_ns * (len(work.shapes) if isinstance(work, Gemm) else 1)

    def _launches(self, work: Attention) -> Column:
        """Attention calls that each rank launches."""
        curve = self._profile.kernel(self._kernel)
        table = work.lowering.table
        if curve.varlen and curve.windows:
            return work.lowering.gather(table.launches)

        def count(lowering: Lowering, _: int) -> int:
            return sum(len(launches_of(curve, call)) for call in lowering.calls)

        return work.lowering.gather(self._per_lowering("launches", table, count))

    def _attention_host_ns(self, work: Attention) -> int:
        """Time to issue one attention call."""
        host_s = self._profile.kernel(self._kernel).direction(work.direction, work.head_dim).host_s
        return to_ns(host_s) if host_s else attention_launches(self._kernel, work.direction) * self._kernel_ns

    def device_ns(self, operation: Operation) -> Column:
        """Time an operation takes on its lane, on each rank."""
        column = self._device_ns(operation)
        if self._counts:
            self._worked.add(operation, column)
        return column

    def _device_ns(self, operation: Operation) -> Column:
        work = operation.work
        if operation.kind == PROPAGATION:
            return to_ns(cast(float, operation.options["seconds"]))
        if isinstance(work, Attention):
            return self._attention(work, self._worked.before_s(operation))
        if isinstance(work, Elementwise):
            return self._elementwise(work)
        if isinstance(work, Exchange):
            return self._exchange(work)
        if isinstance(work, Stencil):
            return self._stencil(work)
        if isinstance(work, HostCopy):
            return _shrink(array_to_ns(estimate_host_copy_s(self._topology, self._profile, work.bytes)))
        if isinstance(work, Collective):
            return self._collective(work)
        return self._gemm(work, self._worked.before_s(operation))

    def workspace_bytes(self, operation: Operation) -> Column:
        """Memory an operation needs while it runs besides its buffers, on each rank."""
        work = operation.work
        if not isinstance(work, Attention) or work.direction == "forward":
            return 0
        shape, delta, curve = attention_shape(work), work.precomputed_delta, self._profile.kernel(self._kernel)

        def need(lowering: Lowering, _: int) -> int:
            launches = [launch for call in lowering.calls for launch in launches_of(curve, call)]
            needed = [
                attention_workspace_bytes(self._kernel, each, shape, precomputed_delta=delta) for each in launches
            ]
            return max(needed, default=0)

        return work.lowering.gather(self._per_lowering(("workspace", shape, delta), work.lowering.table, need))

    def _attention(self, work: Attention, worked_s: float) -> Column:
        column, key, price = self._attention_price(work, worked_s)
        return column.gather(self._per_lowering(key, column.table, price))

    def _attention_price(
        self, work: Attention, worked_s: float
    ) -> tuple[LoweringColumn, Hashable, Callable[[Lowering, int], int]]:
        """The lowerings that are launched, what tells their prices, and the price of one."""
        shape, direction, delta = attention_shape(work), work.direction, work.precomputed_delta
        column, kernel, share = work.lowering, self._kernel, 1.0
        if work.sparse is not None:
            column, share = work.sparse.within, work.sparse.share
            kernel = work.sparse.kernel if work.sparse.kernel in self._profile.kernels else kernel

        def price(lowering: Lowering, _: int) -> int:
            return to_ns(
                estimate_calls_s(
                    self._profile, kernel, lowering.calls, shape, direction,
                    precomputed_delta=delta, worked_s=worked_s, share=share,
                )
            )  # fmt: skip

        return column, (shape, direction, delta, worked_s, share, kernel), price

    def _elementwise(self, work: Elementwise) -> Column:
        if work.lowering is None:
            return self._bytes(work.pattern, work.bytes_read, work.bytes_written)
        covered = work.lowering.table.covered(work.side)

        def price(_: Lowering, number: int) -> int:
            tokens = int(covered[number])
            read, written = tokens * work.bytes_read, tokens * work.bytes_written
            return to_ns(float(estimate_elementwise_s(self._profile, read, written, work.pattern)))

        key = (work.pattern, work.bytes_read, work.bytes_written, work.side)
        return work.lowering.gather(self._per_lowering(key, work.lowering.table, price))

    def _bytes(self, pattern: str, read: Column, written: Column) -> Column:
        if isinstance(read, int) and isinstance(written, int):
            key = (pattern, read, written)
            if key not in self._priced:
                self._priced[key] = to_ns(float(estimate_elementwise_s(self._profile, read, written, pattern)))
            return self._priced[key]
        return array_to_ns(np.asarray(estimate_elementwise_s(self._profile, read, written, pattern)))

    def _gemm(self, work: Gemm, worked_s: float = 0.0) -> Column:
        if isinstance(work.m, int) and isinstance(work.planes, int):
            return self._gemm_ns(work, work.m, work.planes, worked_s)
        rows = np.stack(np.broadcast_arrays(work.m, work.planes), axis=1)
        distinct, index = np.unique(rows, axis=0, return_inverse=True)
        prices = [self._gemm_ns(work, int(m), int(planes), worked_s) for m, planes in distinct]
        return np.array(prices, dtype=np.int64)[index.reshape(-1)]

    def _gemm_ns(self, work: Gemm, m: int, planes: int, worked_s: float) -> int:
        worked_s = worked_s if self._profile.gemm.sustained_loss else 0.0
        key = ("gemm", m, planes, work.shapes, work.dtype, work.weight_bits, work.over_rows, worked_s)
        if key not in self._priced:
            dtype, bits = work.dtype, work.weight_bits
            sizes = gemm_sizes(work, m)
            profile = self._profile
            seconds = sum(estimate_gemm_s(profile, *size, dtype, bits, planes, worked_s=worked_s) for size in sizes)
            self._priced[key] = to_ns(seconds)
        return cast(int, self._priced[key])

    def _exchange(self, work: Exchange) -> Column:
        key = _exchange_key(work)
        if key is None or key not in self._priced:
            source = np.arange(work.ring.n_ranks)
            seconds = estimate_exchange_s(self._topology, self._profile, source, work.ring.to, work.bytes)
            column = _shrink(array_to_ns(seconds))
            if key is None:
                return column
            self._priced[key] = column
        return self._priced[key]

    def _collective(self, work: Collective) -> Column:
        if work.splits is not None:
            return self._all_to_all_v(work)
        if isinstance(work, Transfer):
            return self._transfer(work)
        size = int(np.max(work.bytes))
        key = (work.collective, size, None if work.groups is None else work.groups.tobytes())
        if key not in self._priced:
            groups = group_numbers(work, self._topology.n_ranks)
            kinds, kind_of_group = groups_alike(self._topology, groups)
            seconds = [
                estimate_collective_s(self._topology, self._profile, work.collective, ranks, size) for ranks in kinds
            ]
            self._priced[key] = _shrink(array_to_ns(np.array(seconds))[kind_of_group[groups]])
        return self._priced[key]

    def _all_to_all_v(self, work: Collective) -> Column:
        """Flows between all ranks at once; a rank is done when the last flow that it sends or receives is."""
        assert work.splits is not None
        key = (id(work.splits), work.row_bytes)
        if key in self._of_splits:
            return self._of_splits[key][1]
        source, target = np.nonzero(work.splits)
        size = work.splits[source, target] * work.row_bytes
        flow_ns = array_to_ns(np.asarray(estimate_exchange_s(self._topology, self._profile, source, target, size)))
        column = np.zeros(len(work.splits), dtype=np.int64)
        np.maximum.at(column, source, flow_ns)
        np.maximum.at(column, target, flow_ns)
        self._of_splits[key] = work.splits, _shrink(column)
        return self._of_splits[key][1]

    def demands(self, operation: Operation) -> list[Demand | None]:
        """What an exchange asks of the links, by sending rank; a collective, by group.

        The flows of an all_to_all_v end one by one and are priced with what they take from each other: none asks.
        """
        work, n_ranks = operation.work, self._topology.n_ranks
        if isinstance(work, Exchange):
            return exchange_demands(self._topology, self._profile, np.arange(n_ranks), work.ring.to, work.bytes)
        assert isinstance(work, Collective)
        if work.splits is not None:
            return [None] * (int(group_numbers(work, n_ranks).max()) + 1)
        if isinstance(work, Transfer) and work.arrived:
            return [None] * (int(group_numbers(work, n_ranks).max()) + 1)
        if isinstance(work, Transfer):
            sent = exchange_demands(self._topology, self._profile, np.arange(n_ranks), work.to, work.bytes)
            groups = group_numbers(work, n_ranks).tolist()
            senders = {group: rank for rank, group in enumerate(groups) if sent[rank]}
            return [sent[senders[group]] if group in senders else None for group in range(max(groups) + 1)]
        size, groups = int(np.max(work.bytes)), group_numbers(work, n_ranks)
        seconds = np.broadcast_to(np.asarray(self._collective(work)), n_ranks) / 1e9
        members = [np.flatnonzero(groups == group) for group in range(int(groups.max()) + 1)]
        return [
            collective_demand(self._topology, self._profile, work.collective, ranks, size, float(seconds[ranks[0]]))
            for ranks in members
        ]

    def _stencil(self, work: Stencil) -> Column:
        columns = np.broadcast_arrays(*map(np.atleast_1d, (work.bytes_read, work.bytes_written, work.flop)))
        distinct, index = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
        seconds = [estimate_stencil_s(self._profile, *map(int, row)) for row in distinct]
        return _shrink(array_to_ns(np.array(seconds))[index.reshape(-1)])

    def _transfer(self, work: Transfer) -> Column:
        """All pairs send at once; both ends of a pair are done at the same time."""
        if work.arrived:
            return 0
        size = int(np.max(work.bytes))
        key = ("send", size, work.to.tobytes())
        if key not in self._priced:
            source = np.flatnonzero(work.to != np.arange(len(work.to)))
            seconds = estimate_exchange_s(self._topology, self._profile, source, work.to[source], size)
            column = np.zeros(len(work.to), dtype=np.int64)
            column[source] = column[work.to[source]] = array_to_ns(seconds)
            self._priced[key] = column
        return self._priced[key]

    def _per_lowering(self, key: Hashable, table: LoweringSet, price: Callable[[Lowering, int], int]) -> IntArray:
        """One number per distinct lowering; found when a table has new ones."""
        full_key = (id(table), key)
        _, known = self._tables.get(full_key, (table, np.zeros(0, dtype=np.int64)))
        if len(known) < len(table.lowerings):
            fresh = range(len(known), len(table.lowerings))
            added = np.array([price(table.lowerings[number], number) for number in fresh], dtype=np.int64)
            known = np.concatenate([known, added])
            self._tables[full_key] = (table, known)
        return known


def _exchange_key(work: Exchange) -> Hashable:
    """What tells an exchange's price; of many ranks, for which that is long, even exchanges by their ring only."""
    size = work.bytes if isinstance(work.bytes, int) else work.bytes.tobytes()
    if work.ring.n_ranks <= MOST_KEYED:
        return work.ring.to.tobytes(), size
    return (work.ring, size) if isinstance(size, int) else None


def attention_shape(work: Attention) -> AttentionShape:
    """What an attention kernel's price depends on besides its calls."""
    return AttentionShape(
        work.batch, work.heads, work.kv_heads, work.head_dim, work.v_head_dim, work.dtype, work.row_bytes
    )


def gemm_sizes(work: Gemm, m: int) -> list[tuple[int, int, int]]:
    """Size (m, n, k) of each product, for so many rows."""
    return [(n, k, m) if work.over_rows else (m, n, k) for n, k in work.shapes]


def group_numbers(work: Collective, n_ranks: int) -> IntArray:
    """Group of each rank."""
    return np.zeros(n_ranks, dtype=np.int64) if work.groups is None else work.groups


def groups_alike(topology: ClusterTopology, groups: IntArray) -> tuple[list[IntArray], IntArray]:
    """One group of each kind that NCCL sets up alike, and the kind of each group.

    Groups are alike that have the same local ranks of the same machines, node by node. None are where links are slow,
    or groups are not equally large.
    """
    sizes = np.bincount(groups)
    if topology.slowed or (sizes != sizes[0]).any():
        return [np.flatnonzero(groups == group) for group in range(len(sizes))], np.arange(len(sizes))
    members = np.argsort(groups, kind="stable").reshape(len(sizes), -1)
    node = topology.node_of[members]
    machine, local = np.asarray(topology.machine_of_node)[node], topology.local_rank[members]
    rows = np.concatenate([machine, local, np.diff(node, axis=1) != 0], axis=1)
    _, first, kind = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return [members[index] for index in first.tolist()], kind.reshape(-1)


def to_ns(seconds: float) -> int:
    """Whole nanoseconds, rounded to nearest."""
    return round(seconds * 1e9)


def array_to_ns(seconds: FloatArray) -> IntArray:
    """Whole nanoseconds, rounded to nearest."""
    return np.rint(seconds * 1e9).astype(np.int64)


def _shrink(column: IntArray) -> Column:
    """One number where all ranks agree."""
    return int(column[0]) if bool((column == column[0]).all()) else column

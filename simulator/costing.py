"""Prices operations: what they are (`simulator.program.operations`) to how long they take, in integer nanoseconds.

    device_ns = round(1e9 seconds),  seconds by `cost_models.kernels` and `cost_models.network`
    host_ns   = launches x launch_s, or what issuing an exchange or a collective takes; in a call on its own that of the
                kind of operation, and more for the first of each

Every distinct shape is priced once: attention per distinct lowering (`kernel_costs`), transfers per ring and size
(`network_costs`), kept in `prices`.
"""

from __future__ import annotations

from typing import cast

from cost_models.hardware import HardwareProfile
from cost_models.network import Demand, estimate_host_copy_s
from cost_models.topology import ClusterTopology
from simulator.kernel_costs import KernelCosts
from simulator.network_costs import NetworkCosts
from simulator.prices import Prices, array_to_ns, shrink, to_ns
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
)
from simulator.worked import Worked


class CostModel(KernelCosts):
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
        prices = prices or Prices()
        super().__init__(profile, kernel, prices)
        self._topology, self._network = topology, NetworkCosts(topology, profile, prices)
        self._worked, self._counts = worked or Worked(), worked is None
        host = profile.host
        self._kinds_ns = {kind: to_ns(seconds) for kind, seconds in host.kinds.items()} if host.cold else {}
        self._first_of: dict[tuple[str, str], int] = {}
        self._exchange_ns, self._collective_ns, self._graph_ns, self._node_ns = map(
            to_ns, (host.exchange_s, host.collective_s, host.graph_s, host.graph_node_s)
        )

    @property
    def settled_at(self) -> int | None:
        """Number of the operation from which on prices do not change with work done; None where they still do."""
        curve, power = self._profile.kernel(self._kernel), self._profile.power
        passes = [curve.forward, curve.backward]
        for each in curve.head_dims.values():
            passes += [each.forward, each.backward]
        losses = [self._profile.gemm.sustained_loss, *[each.sustained_loss for each in passes]]
        if not any(losses) and power == type(power)():
            return 0
        return self._worked.settled_at

    def host_ns(self, operation: Operation) -> Column:
        """Time the host needs to issue an operation, on each rank."""
        if operation.kind == PROPAGATION:
            return 0
        if "graphed" in operation.options:
            return cast(IntArray, operation.options["graphed"]) * self._graph_ns + self._node_ns
        column = self._issue_ns(operation)
        if not self._profile.host.cold:
            return column
        launches = [operation.kind] + (["row_dot"] if self._makes_output(operation.work) else [])
        return column + sum(self._first_ns(each, operation) for each in launches)

    def _issue_ns(self, operation: Operation) -> Column:
        work = operation.work
        if isinstance(work, Exchange):
            return self._kinds_ns.get(operation.kind, self._exchange_ns)
        if isinstance(work, Collective):
            return self._kinds_ns.get(operation.kind, self._collective_ns)
        if isinstance(work, Attention):
            issuing = self._launches(work) * (self._attention_host_ns(work) + self._delta_ns(work))
            return issuing + self._put_together_launches(work) * self._kinds_ns.get("merge", self._kernel_ns)
        times = len(work.shapes) if isinstance(work, Gemm) else 1
        return self._kinds_ns.get(operation.kind, self._kernel_ns) * times

    def _delta_ns(self, work: Attention) -> int:
        """A kernel that computes delta itself is given it by an output made for it, in a launch like a row_dot."""
        if not self._profile.host.cold or not self._makes_output(work):
            return 0
        return self._kinds_ns.get("row_dot", self._kernel_ns)

    def _makes_output(self, work: object) -> bool:
        return (
            isinstance(work, Attention)
            and work.precomputed_delta
            and not self._profile.kernel(self._kernel).takes_delta
        )

    def _first_ns(self, kind: str, operation: Operation) -> int:
        """What the first launch of a kind takes more, as the host's caches are cold."""
        if self._first_of.setdefault((kind, operation.kind), operation.id) != operation.id:
            return 0
        host = self._profile.host
        return to_ns(host.first.get(kind, host.first_s))

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
            executed = cast("Elementwise | None", operation.options.get("executed"))
            return self._elementwise(executed if executed and self._profile.host.cold else work)
        if isinstance(work, Exchange):
            return self._network.exchange_ns(work)
        if isinstance(work, Stencil):
            return self._stencil(work)
        if isinstance(work, HostCopy):
            return shrink(array_to_ns(estimate_host_copy_s(self._topology, self._profile, work.bytes)))
        if isinstance(work, Collective):
            return self._network.collective_ns(work)
        return self._gemm(work, self._worked.before_s(operation))

    def demands(self, operation: Operation) -> list[Demand | None]:
        """What communication asks of the links: an exchange by sending rank, a collective by group."""
        assert isinstance(operation.work, Exchange | Collective)
        return self._network.demands(operation.work)

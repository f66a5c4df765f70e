"""What the host of a GPU takes: to issue work, and to copy to and from its memory."""

from __future__ import annotations

from cost_models.hardware.terms import Positive, Seconds, Share, Terms


class HostCosts(Terms):
    """Time the host needs to issue one kernel, one grouped send and receive, one collective, and a CUDA graph.

    A graph of n kernels in a row takes ``graph_s + n graph_node_s``; the defaults are NVIDIA's figures for CUDA 12.6
    (developer blog of 2024-09, "Constant Time Launch for Straight-Line CUDA Graphs": a repeated launch takes 2.5 us and
    about 1 ns a node, 2 us and 200 ns a node before), read in three places that quote it; nobody here has measured it.

    ``kernel_s`` and `KernelPass.host_s` are of a host that issues the like all the time. In a call on its own
    (``cold``) code and data of operations are in few of the host's caches. Then ``kinds`` has the time of one operation
    of a kind (`simulator.program.operations`; of attention of one launch, KERNEL_DIRECTION), with all its launches and
    the memory that it takes and gives back, as this toolkit's executor issues it. The first operation of each kind
    takes ``first`` more, or ``first_s``. ``isolated`` is how many times as long as all that a call takes to issue in
    fact, ``isolated_error`` the half-width of the 90 % band around it.
    """

    kernel_s: Seconds
    exchange_s: Seconds
    collective_s: Seconds
    graph_s: Seconds = 2.5e-6
    graph_node_s: Seconds = 1e-9
    kinds: dict[str, Seconds] = {}
    first: dict[str, Seconds] = {}
    first_s: Seconds = 0.0
    cold: bool = False
    isolated: Positive = 1.0
    isolated_error: Share = 0.0

    def alone(self) -> HostCosts:
        """The same in a call on its own."""
        f = self.isolated
        scaled = {"kernel_s": self.kernel_s * f, "first_s": self.first_s * f, "cold": True, "isolated": 1.0}
        tables = {name: {kind: s * f for kind, s in getattr(self, name).items()} for name in ("kinds", "first")}
        return self.model_copy(update={**scaled, **tables})


class CopyTerms(Terms):
    """Copies between GPU and host by copy engines.

    The rates are shares of what NCCL takes a link for (48 GB/s of PCIe Gen5 x16, whose line rate is 63): nvbandwidth's
    host_to_device_memcpy_ce and its reverse reach 55.4 and 55.1 GB/s on an H200 (stas00/ml-engineering,
    network/README.md). C2C is taken as NCCL has it.
    """

    latency_s: Seconds = 10e-6
    pcie: Positive = 1.15
    c2c: Positive = 1.0

"""The ranks of a network's microbenchmark: who they are, and how they time a call together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

import torch
import torch.distributed as dist
from torch import Tensor

from validators.bench.timing import LEAD_CYCLES
from validators.executors.world import communication_first, own_gpu

Call = Callable[[], object]
TIMEOUT = timedelta(seconds=60)
"""After it a rank that waits for one that failed gives up."""


@dataclass
class Group:
    """The ranks, and this one's device.

    Attributes
    ----------
    token : what ranks exchange to start together.
    """

    rank: int
    size: int
    device: torch.device
    token: Tensor

    @staticmethod
    def join() -> Group:
        """Join the ranks that torchrun started."""
        if torch.cuda.is_available():
            device = own_gpu()
            torch.cuda.set_device(device)
            dist.init_process_group("nccl", device_id=device, timeout=TIMEOUT)
        else:
            device = torch.device("cpu")
            dist.init_process_group("gloo", timeout=TIMEOUT)
        return Group(dist.get_rank(), dist.get_world_size(), device, torch.zeros(1, device=device))

    @cached_property
    def prioritised(self) -> dist.ProcessGroup:
        """The same ranks, with NCCL's kernels on a stream of high priority; all ranks ask for it together."""
        return dist.new_group(timeout=TIMEOUT, backend="nccl", pg_options=communication_first())

    def agree(self, value: float) -> float:
        """The largest value of all ranks."""
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return float(tensor.item())

    def time(self, call: Call) -> float:
        """Seconds of one call that all ranks start together, the maximum over ranks."""
        if self.device.type != "cuda":
            dist.barrier()
            start = time.perf_counter()
            call()
            return self.agree(time.perf_counter() - start)
        self._issue_ahead(LEAD_CYCLES)
        return self._between(call)

    def time_beside(self, call: Call, beside: Call, stream: torch.cuda.Stream) -> float:
        """Seconds of one call while another runs over and over on a stream of its own."""
        self._issue_ahead(4 * LEAD_CYCLES)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                beside()
        return self._between(call)

    def _issue_ahead(self, cycles: int) -> None:
        """Have devices busy until what follows is issued, and then meet: hosts come from a barrier one by one."""
        dist.barrier()
        torch.cuda.synchronize()
        torch.cuda._sleep(cycles)
        dist.all_reduce(self.token)

    def _between(self, call: Call) -> float:
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        call()
        after.record()
        torch.cuda.synchronize()
        return self.agree(before.elapsed_time(after) / 1e3)

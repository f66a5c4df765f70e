"""Calls of a network's microbenchmark: exchanges, collectives, and both beside kernels; right before they are timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor

from traces.records import CalibrationRecord
from validators.bench.attention import call_of, draw_problem
from validators.bench.network_group import Call, Group
from validators.bench.plan import MASKS, Case, attention_case
from validators.kernels import build_attention_kernel

SAMPLES, SECONDS = 10, 1.0


class NetworkBench:
    """Measures the cases of one group."""

    def __init__(self, group: Group) -> None:
        self.group = group

    def run(self, case: Case, machine: str) -> CalibrationRecord:
        """The record of a case: the same on all ranks."""
        outcome, detail = "measured", None
        try:
            call = self._interference(case) if case.kind == "interference" else self._operation(case)
        except (RuntimeError, NotImplementedError, ValueError) as error:
            outcome = "out_of_memory" if isinstance(error, torch.OutOfMemoryError) else "refused"
            call, detail = None, f"{type(error).__name__}: {str(error).splitlines()[0]}"[:300]
        failed = self.group.agree(0.0 if call else 1.0) > 0
        if failed:
            return CalibrationRecord(
                case.kind, case.parameters, "refused" if call else outcome, (), machine, detail=detail
            )
        timed = cast("Callable[[], float]", call)
        first = timed()
        count = max(3, min(SAMPLES, int(SECONDS / max(first, 1e-6))))
        samples = tuple([timed() for _ in range(count)])
        return CalibrationRecord(case.kind, case.parameters, outcome, samples, machine)

    def _operation(self, case: Case) -> Callable[[], float]:
        call = self._checked(case)
        hops = cast(int, case.parameters["hops"])

        def train() -> None:
            for _ in range(hops):
                call()

        return lambda: self.group.time(train)

    def _checked(self, case: Case) -> Call:
        """The call, after its result was seen to be right."""
        operation, size = str(case.parameters["operation"]), cast(int, case.parameters["bytes"])
        if operation in ("exchange", "one-way"):
            return self._exchange(size, one_way=operation == "one-way")
        return self._collective(operation, size)

    def _exchange(self, size: int, *, one_way: bool, group: dist.ProcessGroup | None = None) -> Call:
        rank, ranks = self.group.rank, self.group.size
        source, target = self._filled(size, rank + 1), self._filled(size, 0)
        following, previous = (rank + 1) % ranks, (rank - 1) % ranks
        sends = not one_way or (rank % 2 == 0 and rank + 1 < ranks)
        receives = not one_way or rank % 2 == 1
        if ranks < 2:
            raise ValueError("an exchange needs two ranks")

        def call() -> None:
            hops = [dist.P2POp(dist.isend, source, following, group)] if sends else []
            hops += [dist.P2POp(dist.irecv, target, previous, group)] if receives else []
            for work in dist.batch_isend_irecv(hops) if hops else []:
                work.wait()

        call()
        self._expect(target, previous + 1 if receives else 0)
        return call

    def _collective(self, operation: str, size: int) -> Call:
        rank, ranks = self.group.rank, self.group.size
        source = self._filled(size, rank + 1)
        everyone = sum(range(1, ranks + 1))
        if operation == "all_reduce":
            return self._all_reduce(source, everyone)
        if operation == "all_gather":
            return self._gathered(dist.all_gather_into_tensor, self._filled(size * ranks, 0), source)
        if source.numel() % ranks:
            raise ValueError(f"{operation} of {size} bytes does not divide by {ranks} ranks")
        if operation == "all_to_all":
            return self._gathered(dist.all_to_all_single, self._filled(size, 0), source)
        summed = self._filled(size // ranks, 0)
        dist.reduce_scatter_tensor(summed, source)
        self._expect(summed, everyone)
        return lambda: dist.reduce_scatter_tensor(summed, source)

    def _all_reduce(self, buffer: Tensor, everyone: int) -> Call:
        dist.all_reduce(buffer)
        self._expect(buffer, everyone)
        buffer.fill_(0)  # sums of zeros: repeated in place they do not overflow
        return lambda: dist.all_reduce(buffer)

    def _gathered(self, collective: Callable[[Tensor, Tensor], object], target: Tensor, source: Tensor) -> Call:
        """A part of every rank, in order."""
        collective(target, source)
        for number, part in enumerate(target.view(self.group.size, -1), 1):
            self._expect(part, number)
        return lambda: collective(target, source)

    def _filled(self, size: int, value: int) -> Tensor:
        return torch.full((size // 4,), float(value), dtype=torch.float32, device=self.group.device)

    def _expect(self, tensor: Tensor, value: int) -> None:
        if not bool((tensor == value).all()):
            raise RuntimeError(f"wrong result: expected {value} everywhere")

    def _interference(self, case: Case) -> Callable[[], float]:
        if self.group.device.type != "cuda":
            raise ValueError("interference is between streams of a GPU")
        size, group = (
            cast(int, case.parameters["bytes"]),
            self.group.prioritised if "priority" in case.parameters else None,
        )
        exchange = self._exchange(size, one_way=False, group=group)
        kernel = _kernel(str(case.parameters["kernel"]), self.group.device)
        kernel()
        first, second = (kernel, exchange) if case.parameters["measured"] == "kernel" else (exchange, kernel)
        other = torch.cuda.Stream()
        return lambda: self.group.time_beside(first, second, other)


def _kernel(name: str, device: torch.device) -> Call:
    """Some milliseconds of work."""
    if name == "gemm":
        x = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
        return lambda: x @ x
    case = attention_case("cudnn", "forward", (1, 32, 8), 128, 8192, 8192, MASKS["full"])
    problem, call = draw_problem(case.parameters, 0, device), call_of(case.parameters)
    attention = build_attention_kernel("cudnn")
    return lambda: attention.forward(problem.q, problem.k, problem.v, call)

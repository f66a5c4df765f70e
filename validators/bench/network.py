"""Exchanges and collectives between ranks, and what they and kernels do to each other: one process per rank.

``torchrun --nproc-per-node N -m validators.bench.network --records FILE --minutes M`` measures over NCCL where there
are GPUs, else over gloo; any number of ranks and nodes. A case is timed after a barrier, on every rank; a sample is the
maximum over the ranks. Every operation's result is checked before it is timed.

| operation | per rank |
|---|---|
| exchange | one grouped send to the next and receive from the previous rank; ``hops`` of them in a row (a train) |
| one-way | even ranks send, odd ones receive |
| all_to_all, all_gather, reduce_scatter, all_reduce | as in NCCL; ``bytes`` is each rank's input |

Interference: a kernel (attention, GEMM) and an exchange start together on streams of their own; what is timed is the
one that ``measured`` names, on the rank that takes longest. How ranks are linked is said by the environment (NCCL_*),
which is in the records' provenance, and by ``--link``, a name for it.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor

from traces.records import CalibrationRecord, RecordFile, open_records
from validators.bench.attention import call_of, draw_problem
from validators.bench.machine import describe_machine
from validators.bench.plan import MASKS, Case, attention_case, ordered
from validators.bench.timing import LEAD_CYCLES
from validators.kernels import build_attention_kernel

COLLECTIVES = ("all_to_all", "all_gather", "reduce_scatter", "all_reduce")
SMALLEST, LARGEST = 10, 30
"""Powers of two of the bytes of a message."""
TRAINS = (2, 8)
KERNELS = ("attention", "gemm")
SAMPLES, SECONDS = 10, 1.0

Call = Callable[[], object]


def network_plan(ranks: int, link: str, largest: int = LARGEST) -> list[Case]:
    """All cases of a group of ranks; trains and interference at sizes that a ring of attention has."""
    cases = []
    sizes = [2**power for power in range(SMALLEST, largest + 1)]
    for operation, size in product(("exchange", "one-way", *COLLECTIVES), sizes):
        cases.append(_case("network", ranks, link, operation=operation, bytes=size, hops=1))
    for hops, size in product(TRAINS, sizes[6::4]):
        cases.append(_case("network", ranks, link, operation="exchange", bytes=size, hops=hops))
    for kernel, measured, size in product(KERNELS, ("kernel", "exchange"), sizes[14::3]):
        cases.append(_case("interference", ranks, link, 1, kernel=kernel, measured=measured, bytes=size))
    return ordered(cases)


def _case(kind: str, ranks: int, link: str, priority: int = 0, **parameters: int | str) -> Case:
    return Case(kind, {"ranks": ranks, "link": link, **parameters}, priority)


@dataclass
class Group:
    """The ranks, and this one's device."""

    rank: int
    size: int
    device: torch.device

    @staticmethod
    def join() -> Group:
        """Join the ranks that torchrun started."""
        if torch.cuda.is_available():
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(device)
            dist.init_process_group("nccl", device_id=device)
        else:
            device = torch.device("cpu")
            dist.init_process_group("gloo")
        return Group(dist.get_rank(), dist.get_world_size(), device)

    def agree(self, value: float) -> float:
        """The largest value of all ranks."""
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return float(tensor.item())

    def time(self, call: Call) -> float:
        """Seconds of one call after a barrier, the maximum over ranks."""
        dist.barrier()
        if self.device.type != "cuda":
            start = time.perf_counter()
            call()
            return self.agree(time.perf_counter() - start)
        torch.cuda.synchronize()
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(LEAD_CYCLES)
        before.record()
        call()
        after.record()
        torch.cuda.synchronize()
        return self.agree(before.elapsed_time(after) / 1e3)


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
            call, outcome, detail = None, "refused", f"{type(error).__name__}: {str(error).splitlines()[0]}"[:300]
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

    def _exchange(self, size: int, *, one_way: bool) -> Call:
        rank, ranks = self.group.rank, self.group.size
        source, target = self._filled(size, rank + 1), self._filled(size, 0)
        following, previous = (rank + 1) % ranks, (rank - 1) % ranks
        sends = not one_way or (rank % 2 == 0 and rank + 1 < ranks)
        receives = not one_way or rank % 2 == 1
        if ranks < 2:
            raise ValueError("an exchange needs two ranks")

        def call() -> None:
            hops = [dist.P2POp(dist.isend, source, following)] if sends else []
            hops += [dist.P2POp(dist.irecv, target, previous)] if receives else []
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
            buffer = self._filled(size, rank + 1)
            dist.all_reduce(buffer)
            self._expect(buffer, everyone)
            buffer.fill_(0)  # sums of zeros: repeated in place they do not overflow
            return lambda: dist.all_reduce(buffer)
        if operation == "all_gather":
            gathered = self._filled(size * ranks, 0)
            call: Call = lambda: dist.all_gather_into_tensor(gathered, source)  # noqa: E731
            call()
            self._expect(gathered.view(ranks, -1)[-1], ranks)
            return call
        if source.numel() % ranks:
            raise ValueError(f"{operation} of {size} bytes does not divide by {ranks} ranks")
        if operation == "all_to_all":
            received = self._filled(size, 0)
            call = lambda: dist.all_to_all_single(received, source)  # noqa: E731
            call()
            self._expect(received.view(ranks, -1)[-1], ranks)
            return call
        summed = self._filled(size // ranks, 0)
        call = lambda: dist.reduce_scatter_tensor(summed, source)  # noqa: E731
        call()
        self._expect(summed, everyone)
        return call

    def _filled(self, size: int, value: int) -> Tensor:
        return torch.full((size // 4,), float(value), dtype=torch.float32, device=self.group.device)

    def _expect(self, tensor: Tensor, value: int) -> None:
        if not bool((tensor == value).all()):
            raise RuntimeError(f"wrong result: expected {value} everywhere")

    def _interference(self, case: Case) -> Callable[[], float]:
        if self.group.device.type != "cuda":
            raise ValueError("interference is between streams of a GPU")
        exchange = self._exchange(cast(int, case.parameters["bytes"]), one_way=False)
        kernel = _kernel(str(case.parameters["kernel"]), self.group.device)
        kernel()
        first, second = (kernel, exchange) if case.parameters["measured"] == "kernel" else (exchange, kernel)
        other = torch.cuda.Stream()
        return lambda: self._together(first, second, other)

    def _together(self, measured: Call, beside: Call, other: torch.cuda.Stream) -> float:
        """Seconds of one call while another runs over and over on its own stream."""
        dist.barrier()
        torch.cuda.synchronize()
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(4 * LEAD_CYCLES)
        other.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(other):
            for _ in range(3):
                beside()
        before.record()
        measured()
        after.record()
        torch.cuda.synchronize()
        return self.group.agree(before.elapsed_time(after) / 1e3)


def _kernel(name: str, device: torch.device) -> Call:
    """Some milliseconds of work."""
    if name == "gemm":
        x = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
        return lambda: x @ x
    case = attention_case("cudnn", "forward", (1, 32, 8), 128, 8192, 8192, MASKS["full"])
    problem, call = draw_problem(case.parameters, 0, device), call_of(case.parameters)
    attention = build_attention_kernel("cudnn")
    return lambda: attention.forward(problem.q, problem.k, problem.v, call)


def run_network(plan: list[Case], file: RecordFile | None, group: Group, minutes: float, notes: dict[str, str]) -> int:
    """Measure what the first rank's file lacks; the number of cases measured. Only the first rank has a file."""
    end = time.monotonic() + 60 * minutes
    machine = file.add_machine(describe_machine(group.device) | notes) if file else ""
    known = {record.key for record in file.records} if file else set()
    bench, done = NetworkBench(group), 0
    for case in plan:
        wanted = file is not None and case.key not in known and time.monotonic() < end
        if not group.agree(1.0 if wanted else 0.0):
            continue
        record = bench.run(case, machine)
        done += 1
        if file:
            file.add(record)
            print(record.key, f"{1e6 * record.median_s:.1f} us" if record.samples_s else record.detail, flush=True)
    return done


def main() -> None:
    """Measure under torchrun."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, required=True, help="file of records, appended to by the first rank")
    parser.add_argument("--minutes", type=float, default=8.0, help="no case is begun after them")
    parser.add_argument("--link", default="default", help="a name for how the ranks are linked")
    parser.add_argument("--largest", type=int, default=LARGEST, help="power of two of the largest message")
    options = parser.parse_args()
    group = Group.join()
    file = open_records(options.records) if group.rank == 0 else None
    plan = network_plan(group.size, options.link, options.largest)
    done = run_network(plan, file, group, options.minutes, {"link": options.link, "backend": dist.get_backend()})
    if group.rank == 0:
        print(done, "cases measured")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

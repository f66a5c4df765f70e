"""Exchanges and collectives between ranks, and what they and kernels do to each other: one process per rank.

``torchrun --nproc-per-node N -m validators.bench.network --records FILE --minutes M`` measures over NCCL where there
are GPUs, else over gloo; any number of ranks and nodes. A case is timed on every rank, from when all devices have met;
a sample is the maximum over the ranks. Every operation's result is checked before it is timed.

| operation | per rank |
|---|---|
| exchange | one grouped send to the next and receive from the previous rank; ``hops`` of them in a row (a train) |
| one-way | even ranks send, odd ones receive |
| all_to_all, all_gather, reduce_scatter, all_reduce | as in NCCL; ``bytes`` is each rank's input |

Interference: a kernel (attention, GEMM) and an exchange start together on streams of their own; what is timed is the
one that ``measured`` names, on the rank that takes longest; ``priority`` is that of NCCL's stream. How ranks are linked
is said by the environment (NCCL_*), which is in the records' provenance, and by ``--link``, a name for it.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from pathlib import Path

import torch.distributed as dist

from traces.records import RecordFile, open_records
from validators.bench.machine import describe_machine
from validators.bench.network_calls import NetworkBench
from validators.bench.network_group import Group
from validators.bench.plan import Case, ordered

COLLECTIVES = ("all_to_all", "all_gather", "reduce_scatter", "all_reduce")
SMALLEST, LARGEST = 10, 30
"""Powers of two of the bytes of a message."""
TRAINS = (2, 8)
KERNELS = ("attention", "gemm")


def network_plan(ranks: int, link: str, largest: int = LARGEST) -> list[Case]:
    """All cases of a group of ranks; trains and interference at sizes that a ring of attention has."""
    cases = []
    sizes = [2**power for power in range(SMALLEST, largest + 1)]
    for operation, size in product(("exchange", "one-way", *COLLECTIVES), sizes):
        cases.append(_case("network", ranks, link, operation=operation, bytes=size, hops=1))
    for hops, size in product(TRAINS, sizes[6::4]):
        cases.append(_case("network", ranks, link, operation="exchange", bytes=size, hops=hops))
    for kernel, measured, size in product(KERNELS, ("kernel", "exchange"), sizes[14::3]):
        beside: dict[str, int | str] = {"kernel": kernel, "measured": measured, "bytes": size}
        cases.append(_case("interference", ranks, link, 1, **beside))
        cases.append(_case("interference", ranks, link, 1, **beside, priority=1))
    return ordered(cases)


def _case(kind: str, ranks: int, link: str, turn: int = 0, /, **parameters: int | str) -> Case:
    return Case(kind, {"ranks": ranks, "link": link, **parameters}, turn)


def run_network(
    plan: list[Case], file: RecordFile | None, group: Group, minutes: float, notes: dict[str, str]
) -> tuple[int, int]:
    """Measure what the first rank's file lacks; how many cases were, and are left. Only the first rank has a file."""
    end = time.monotonic() + 60 * minutes
    machine = file.add_machine(describe_machine(group.device) | notes) if file else ""
    known = {record.key for record in file.records} if file else set()
    bench, done, left = NetworkBench(group), 0, 0
    for case in plan:
        missing = file is not None and case.key not in known
        in_time = time.monotonic() < end
        left += missing and not in_time
        if not group.agree(1.0 if missing and in_time else 0.0):
            continue
        record = bench.run(case, machine)
        done += 1
        if file:
            file.add(record)
            print(record.key, f"{1e6 * record.median_s:.1f} us" if record.samples_s else record.detail, flush=True)
    return done, left


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
    done, left = run_network(plan, file, group, options.minutes, {"link": options.link, "backend": dist.get_backend()})
    if group.rank == 0:
        print(f"{done} cases measured, {left} left")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

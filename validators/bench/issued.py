"""What the host needs to issue operations as the executor issues them, in calls on their own.

    python -m torch.distributed.run --nproc-per-node 1 -m validators.bench.issued --records FILE --minutes 1
    python -m torch.distributed.run --nproc-per-node 2 -m validators.bench.issued --records FILE --minutes 1

Programs of attention and of small training steps are called as the cross-check calls them: an idle device, ranks that
have just agreed on a start, a rest before steps. The host's clock is read after every operation, which is the ``first``
of its kind in the call, when caches of the host are cold, or a ``later`` one. Kinds that one rank alone does not have
are called by themselves (``alone``); communication goes to the rank itself (``exchange``, ``collective``), which leaves
NCCL little to do on the device. Of several ranks every exact schedule's Program is called, communication and all; what
rank 0's host needs is recorded (``ranks``).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import torch
import torch.distributed as dist

from cost_models.masks import parse_mask
from cost_models.workload import AttentionWorkload
from simulator.program.operations import Attention, Elementwise
from simulator.program.program import Program
from simulator.program.setup import Setup
from simulator.recording import build_program
from simulator.schedules import parse_schedule
from traces.records import CalibrationRecord, RecordFile, Value, open_records
from validators.bench.elementwise import RANK, RANKS
from validators.bench.machine import describe_machine
from validators.executors.distributed import LoadInput, RankExecutor
from validators.executors.kinds import bind
from validators.executors.local import AttentionKernel, LocalOperations
from validators.executors.shards import shape_of
from validators.executors.store import Store
from validators.executors.world import World
from validators.kernels import build_attention_kernel
from validators.kernels.dense import DenseKernel
from validators.kernels.fused import merge_into
from validators.validation.draws import EXACT
from validators.validation.inputs import SeededInputs
from validators.validation.step_configuration import StepConfiguration
from validators.validation.step_inputs import StepInputs
from validators.validation.step_measure import REST_S

TOKENS, CALLS, WARM_CALLS = 1024, 15, 3
MASKS = (
    "causal",
    "document:lengths={half}+{quarter}+{quarter},causal=true",
    "sliding-window:window={eighth},causal=true",
)
SCHEDULES = ("flash", "burst")
STEPS = (
    ("full", "none", 0),
    ("full", "full", 4),
    ("lora:rank=16", "none", 4),
    ("lora:rank=8,targets=all", "attention", 0),
)
"""(method, checkpoint, loss chunks) of models of two layers."""
SEVERAL = ("ring", "burst", "ulysses", "apb:anchor={quarter},passing={eighth}", "allgather")
Times = dict[tuple[tuple[str, Value], ...], list[float]]


def run_issued(world: World, kernels: tuple[str, ...], seconds: float) -> Times:
    """Samples in seconds, by the parameters of their records.

    Parameters
    ----------
    world : of one rank, or of several.
    seconds : no Program is begun after them.
    """
    end, times = time.monotonic() + seconds, Times()
    programs = _programs(world, kernels) if world.size == 1 else _of_several(world, kernels)
    for kernel, program, load, rest_s in programs:
        if world.share(time.monotonic() < end):
            _call(world, kernel, program, load, rest_s, times)
    if world.size == 1 and time.monotonic() < end:
        _alone(world, times)
        _communication(world, times)
    return times


def _programs(world: World, kernels: tuple[str, ...]) -> Iterator[tuple[str, Program, LoadInput, float]]:
    for kernel in kernels:
        for spec in SCHEDULES:
            for mask in MASKS[: 2 if kernel == "cudnn" else 3]:
                dtype = "bf16" if world.device.type == "cuda" else "fp32"
                workload = AttentionWorkload(1, TOKENS, 16, 4, 128, 128, dtype, parse_mask(_sized(mask), TOKENS))
                setup = Setup(workload, 1, 1)
                program = build_program(parse_schedule(spec), setup, "both")
                yield kernel, program, SeededInputs(setup, 0, 0, world.device).load, 0.0
        for method, checkpoint, chunks in STEPS:
            c = StepConfiguration("model", 2, 1024, 8, 2, 128, 2816, 4096, 512, 1, kernel, method, checkpoint, chunks)
            yield kernel, c.program("flash"), StepInputs(c, 0, 0, world.device).load, REST_S


def _of_several(world: World, kernels: tuple[str, ...]) -> Iterator[tuple[str, Program, LoadInput, float]]:
    dtype, ranks = "bf16" if world.device.type == "cuda" else "fp32", world.size
    workload = AttentionWorkload(1, TOKENS * ranks, 16, 4, 128, 128, dtype, parse_mask("causal", TOKENS * ranks))
    setup = Setup(workload, ranks, ranks)
    for spec, kernel in product(EXACT, kernels):
        program = build_program(parse_schedule(spec).resolve(setup), setup, "both")
        yield kernel, program, SeededInputs(setup, 0, world.rank, world.device).load, 0.0


def _sized(text: str) -> str:
    """With parts of the sequence put in."""
    return text.format(half=TOKENS // 2, quarter=TOKENS // 4, eighth=TOKENS // 8)


def _call(world: World, kernel: str, program: Program, load: LoadInput, rest_s: float, times: Times) -> None:
    attention: AttentionKernel = build_attention_kernel(kernel)
    executor = RankExecutor(world, program, attention, load, merge=merge_into)
    kinds = {each.id: each.kind for each in program.operations}
    works = {each.id: each.work for each in program.operations}
    for number in range(WARM_CALLS + CALLS):
        time.sleep(rest_s)
        found, seen = executor.issue_times_ns(), set[str]()
        world.gather(0)
        for operation, took_ns in found if number >= WARM_CALLS else ():
            kind = kinds[operation]
            parameters: dict[str, Value] = {"what": "issue", "operation": kind}
            parameters["turn"] = "later" if kind in seen else "first"
            if world.size > 1:
                parameters["ranks"] = world.size
            if isinstance(work := works[operation], Attention):
                parameters |= {
                    "kernel": kernel, "launches": executor.launches(operation),
                    "segments": sum(len(call.segments) for call in work.lowering.of(0).calls),
                    "delta": work.precomputed_delta,
                }  # fmt: skip
            seen.add(kind)
            times.setdefault(tuple(parameters.items()), []).append(max(took_ns, 1) / 1e9)


def _alone(world: World, times: Times) -> None:
    """Memory-bound operations of one of several ranks, warm."""
    for spec in SEVERAL:
        workload = AttentionWorkload(1, TOKENS * RANKS, 16, 4, 128, 128, "bf16", parse_mask("causal", TOKENS * RANKS))
        done = set[str]()
        for operation in build_program(parse_schedule(_sized(spec)), Setup(workload, RANKS, RANKS)).operations:
            if not isinstance(operation.work, Elementwise) or operation.kind in done:
                continue
            done.add(operation.kind)
            store = Store(
                RANK, world.device, lambda b, dtype: torch.zeros(shape_of(b, RANK), dtype=dtype, device=world.device)
            )
            for buffer in (*operation.reads, *operation.writes):
                store.allocate(buffer)
                store.whole(buffer).zero_()
            call = bind(LocalOperations(DenseKernel(), store, merge_into), operation)
            samples = _samples(world, call)
            times.setdefault((("what", "issue"), ("operation", operation.kind), ("turn", "alone")), []).extend(samples)


def _communication(world: World, times: Times) -> None:
    """Of a rank to itself, behind an event of the compute lane."""
    group = world.group("bench", ((0,),))
    assert group is not None
    sent, received = (torch.zeros(4096, device=world.device) for _ in range(2))

    def exchange() -> None:
        hops = [dist.P2POp(dist.isend, sent, 0, group), dist.P2POp(dist.irecv, received, 0, group)]
        for handle in dist.batch_isend_irecv(hops):
            handle.wait()

    def collective() -> None:
        dist.all_reduce(sent, group=group)

    calls = {"collective": collective} | ({"exchange": exchange} if world.backend == "nccl" else {})
    for what, call in calls.items():
        world.lanes.recorded = False
        world.lanes.begin(world.agree_on_start())
        samples = []
        for number in range(WARM_CALLS + CALLS):
            begun = time.perf_counter_ns()
            world.lanes.communicate(number, "bench", (), call)
            samples.append(max(time.perf_counter_ns() - begun, 1) / 1e9)
        world.lanes.end()
        times[(("what", "issue"), ("operation", what), ("turn", "alone"))] = samples[WARM_CALLS:]


def _samples(world: World, call: Callable[[], None]) -> list[float]:
    samples = []
    for _ in range(WARM_CALLS + CALLS):
        begun = time.perf_counter_ns()
        call()
        samples.append(max(time.perf_counter_ns() - begun, 1) / 1e9)
    world.synchronise()
    return samples[WARM_CALLS:]


def write_records(times: Times, file: RecordFile, device: torch.device) -> None:
    """One record for each kind of operation and turn."""
    machine = file.add_machine(describe_machine(device))
    for parameters, samples in times.items():
        file.add(CalibrationRecord("host", dict(parameters), "measured", tuple(samples), machine))


def main() -> None:
    """Measure under torchrun."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, required=True, help="file of records, appended to")
    parser.add_argument("--minutes", type=float, default=1.0, help="no Program is begun after them")
    parser.add_argument("--backend", default="nccl")
    parser.add_argument("--kernels", nargs="*", default=["flash2", "cudnn"])
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    world = World(options.backend)
    times = run_issued(world, tuple(options.kernels), 60 * options.minutes)
    if world.rank:
        world.leave()
        return
    write_records(times, open_records(options.records), world.device)
    for parameters, samples in sorted(times.items(), key=str):
        print(f"{1e6 * sorted(samples)[len(samples) // 2]:8.1f} us", dict(parameters), len(samples), flush=True)
    world.leave()


if __name__ == "__main__":
    main()

"""Memory-bound operations, done by the executors' own code on operations of recorded Programs.

Every distinct elementwise operation of a few schedules is a case: its kind, access pattern and bytes are those that the
simulator prices. The L2 cache is emptied before each sample, because in a schedule an attention kernel runs between.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import product
from typing import cast

import torch

from cost_models.masks import parse_mask
from cost_models.workload import AttentionWorkload
from simulator.program.operations import Buffer, Column, Elementwise, Operation
from simulator.program.program import Program
from simulator.program.recorder import Recorder
from simulator.program.setup import Setup
from simulator.recording import build_program
from simulator.schedules import parse_schedule
from validators.bench.plan import Case
from validators.bench.timing import Timer
from validators.executors.kinds import perform
from validators.executors.local import LocalOperations
from validators.executors.shards import shape_of
from validators.executors.store import Store
from validators.kernels.dense import DenseKernel

RANKS, RANK = 4, 1
SCHEDULES = ("ring", "burst", "ulysses", "apb:anchor=256,passing=128", "allgather")
LOCAL_TOKENS = (1024, 4096, 16384, 65536)
COMBINE, COMBINED_TOKENS = "combine", (1, 16, 256, 4096)
"""In place of a schedule: the combination of partial results, of so many queries."""
SHAPES = ((1, 32, 8, 128), (1, 16, 2, 64))
"""(batch, heads, kv heads, head dim); with fewer KV heads than ranks Ulysses repeats them."""


def elementwise_cases() -> list[Case]:
    """Distinct operations of the schedules on all shapes."""
    found: dict[object, Case] = {}
    wanted = [*product(SCHEDULES, LOCAL_TOKENS, SHAPES), *product((COMBINE,), COMBINED_TOKENS, SHAPES)]
    for spec, tokens, shape in wanted:
        for operation in _program(spec, tokens, shape).operations:
            if isinstance(operation.work, Elementwise):
                found.setdefault(_signature(operation), _case(operation, spec, tokens, shape))
    return list(found.values())


def run_elementwise(case: Case, timer: Timer) -> list[float]:
    """Samples in seconds."""
    p = case.parameters
    shape = tuple(cast(int, p[name]) for name in ("batch", "heads", "kv_heads", "head_dim"))
    program = _program(str(p["schedule"]), cast(int, p["tokens"]), shape)
    operation = program.operations[cast(int, p["operation"])]
    store = Store(
        RANK, timer.device, lambda buffer, dtype: torch.empty(shape_of(buffer, RANK), dtype=dtype, device=timer.device)
    )
    for buffer in {each.id: each for each in (*operation.reads, *operation.writes)}.values():
        store.allocate(buffer)
        store.whole(buffer).normal_()
    return timer.measure(partial(perform, LocalOperations(DenseKernel(), store), operation), cold=True)


@lru_cache(maxsize=4)
def _program(spec: str, tokens: int, shape: tuple[int, ...]) -> Program:
    batch, heads, kv_heads, head_dim = shape
    seq_len = tokens * RANKS
    if spec == COMBINE:
        return _combination(tokens, shape)
    mask = parse_mask("causal", seq_len)
    workload = AttentionWorkload(batch, seq_len, heads, kv_heads, head_dim, head_dim, "bf16", mask)
    return build_program(parse_schedule(spec), Setup(workload, RANKS, RANKS))


def _combination(tokens: int, shape: tuple[int, ...]) -> Program:
    """The sum of all ranks' partial results of some queries, which is what decoding adds to attention."""
    batch, heads, kv_heads, head_dim = shape
    mask = parse_mask("full", tokens)
    workload = AttentionWorkload(batch, tokens, heads, kv_heads, head_dim, head_dim, "bf16", mask)
    program = Program(Setup(workload, RANKS, RANKS))
    r = Recorder(program.setup, program)
    o_all, o = (r.tensor("o", None, heads, head_dim, "bf16", tokens=tokens, batch=n * batch) for n in (RANKS, 1))
    lse_all, lse = (r.tensor("lse", None, heads, 1, "fp32", tokens=tokens, batch=n * batch) for n in (RANKS, 1))
    r.combine(o_all, lse_all, o, lse)
    return program


def bytes_of(operation: Operation, rank: int) -> tuple[int, int]:
    """Bytes that one rank reads and writes."""
    work = cast(Elementwise, operation.work)
    read, written = _of_rank(work.bytes_read, rank), _of_rank(work.bytes_written, rank)
    if work.lowering is None:
        return read, written
    tokens = _of_rank(work.lowering.gather(work.lowering.table.covered(work.side)), rank)
    return tokens * read, tokens * written


def _of_rank(column: Column, rank: int) -> int:
    return column if isinstance(column, int) else int(column[rank])


def _case(operation: Operation, spec: str, tokens: int, shape: tuple[int, ...]) -> Case:
    read, written = bytes_of(operation, RANK)
    batch, heads, kv_heads, head_dim = shape
    return Case(
        "elementwise",
        {
            "operation_kind": operation.kind, "pattern": cast(Elementwise, operation.work).pattern, "bytes_read": read,
            "bytes_written": written, "schedule": spec, "tokens": tokens, "batch": batch, "heads": heads,
            "kv_heads": kv_heads, "head_dim": head_dim, "operation": operation.id,
        },
        1,
    )  # fmt: skip


def _signature(operation: Operation) -> tuple[object, ...]:
    tensors = tuple(_tensors(operation.reads)), tuple(_tensors(operation.writes))
    return operation.kind, operation.options.get("axis"), bytes_of(operation, RANK), *tensors


def _tensors(buffers: tuple[Buffer, ...]) -> Iterator[tuple[object, ...]]:
    for buffer in buffers:
        yield buffer.dtype, shape_of(buffer, RANK)

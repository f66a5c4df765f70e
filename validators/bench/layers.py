"""Memory-bound operations of layers, loss and optimizer, and products as backward does them, by the executors' code.

Every distinct elementwise operation of a training step's Program is a case, at a few token counts; products are the
forward one, dx = dy w and dw = dy^T x of a layer's matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import product
from typing import cast

import torch

from simulator.program.operations import Buffer, Elementwise, Operation
from simulator.program.program import Program
from validators.bench.elementwise import bytes_of
from validators.bench.plan import Case
from validators.bench.timing import Timer
from validators.executors.kinds import perform
from validators.executors.local import LocalOperations
from validators.executors.shards import shape_of
from validators.executors.store import Store
from validators.kernels.dense import DenseKernel
from validators.validation.step_configuration import StepConfiguration

TOKENS = (1024, 4096, 16384)
SHAPES = ((2048, 16, 4, 128, 5632, 32000), (4096, 32, 8, 128, 14336, 128256))
"""(hidden, heads, kv heads, head dim, intermediate, words)."""
METHODS = ("full", "lora:rank=16")
FORMS = ("dx", "dw")


def layer_cases() -> list[Case]:
    """Distinct operations of a step at each length, and products of a layer's backward."""
    found: dict[object, Case] = {}
    for tokens, shape, method in product(TOKENS, SHAPES, METHODS):
        for operation in _program(tokens, shape, method).operations:
            if isinstance(operation.work, Elementwise) and operation.kind != "wait":
                key = operation.kind, *_shapes(operation)
                found.setdefault(key, _case(operation, tokens, shape, method))
    return [*found.values(), *_products()]


def run_layer(case: Case, timer: Timer) -> list[float]:
    """Samples in seconds."""
    p = case.parameters
    shape = tuple(cast(int, p[name]) for name in ("hidden", "heads", "kv_heads", "head_dim", "intermediate", "words"))
    program = _program(cast(int, p["tokens"]), shape, str(p["method"]))
    operation = program.operations[cast(int, p["operation"])]

    def load(buffer: Buffer, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape_of(buffer, 0), dtype=dtype, device=timer.device)

    store = Store(0, timer.device, load)
    for buffer in {each.id: each for each in (*operation.reads, *operation.writes)}.values():
        store.allocate(buffer)
        tensor = store.whole(buffer)
        tensor.normal_() if tensor.is_floating_point() else tensor.random_(0, shape[-1])
    return timer.measure(partial(perform, LocalOperations(DenseKernel(), store), operation), cold=True)


@lru_cache(maxsize=4)
def _program(tokens: int, shape: tuple[int, ...], method: str) -> Program:
    return StepConfiguration("model", 1, *shape, tokens, 1, "dense", method).program("flash")


def _products() -> Iterator[Case]:
    sizes = set()
    for hidden, heads, kv_heads, dim, inner, _ in SHAPES:
        sizes |= {(heads * dim, hidden), (kv_heads * dim, hidden), (inner, hidden), (hidden, inner)}
    for tokens, (n, k), form in product((2048, 8192, 24576), sorted(sizes), FORMS):
        yield Case("gemm", {"m": tokens, "n": n, "k": k, "dtype": "bf16", "form": form}, 1)


def _shapes(operation: Operation) -> list[tuple[object, ...]]:
    return [(each.dtype, shape_of(each, 0)) for each in (*operation.reads, *operation.writes)]


def _case(operation: Operation, tokens: int, shape: tuple[int, ...], method: str) -> Case:
    read, written = bytes_of(operation, 0)
    hidden, heads, kv_heads, head_dim, intermediate, words = shape
    return Case(
        "elementwise",
        {
            "operation_kind": operation.kind, "pattern": cast(Elementwise, operation.work).pattern, "bytes_read": read,
            "bytes_written": written, "tokens": tokens, "hidden": hidden, "heads": heads, "kv_heads": kv_heads,
            "head_dim": head_dim, "intermediate": intermediate, "words": words, "method": method,
            "operation": operation.id,
        },
        1,
    )  # fmt: skip

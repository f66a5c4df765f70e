"""What to measure, in order of worth: a run that is cut short has the best part of it.

Lengths are powers of two and the values between them, so that a whole length can be left out of a fit; head counts,
groups and batch sizes rotate over them, so that no two of them vary together. The longest are few and have few heads:
a call of theirs takes as long as a hundred of the others.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

from traces.records import Value, record_key

LENGTHS = (512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768)
HEADS = ((1, 32, 8), (1, 8, 8), (2, 16, 4), (1, 64, 8), (1, 32, 32), (4, 8, 2), (1, 16, 2), (1, 40, 8), (1, 12, 12))
"""(batch, heads, kv heads)."""
LONG = {
    49152: ((1, 8, 8), (1, 16, 2)),
    65536: ((1, 32, 8), (1, 8, 2)),
    98304: ((1, 8, 8), (1, 16, 4)),
    131072: ((1, 8, 2), (1, 16, 16)),
    262144: ((1, 4, 4),),
}
MASKS = {"full": (None, None), "causal": (None, 0)}
WINDOWS = ((4096, 511), (8192, 1023), (16384, 2047), (32768, 1023), (32768, 4095), (49152, 6143), (65536, 16383))
"""(length, keys before a query that it sees)."""
DOCUMENTS = (
    (1024,) * 4, (512,) * 16, (4096, 4096), (3072, 768, 256), (8192,) * 4, (1024,) * 32, (6144, 1024, 9216),
    (512, 256, 15616), (16384, 16384), (2048, 24576, 4096, 2048),
)  # fmt: skip
"""Lengths of packed documents."""
FAST_KERNELS = ("cudnn", "flash2")


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes
    ----------
    kind, parameters : as in its record.
    priority : the lower, the earlier.
    """

    kind: str
    parameters: dict[str, Value] = field(hash=False)
    priority: int = 0

    @property
    def key(self) -> str:
        """Of its record."""
        return record_key(self.kind, self.parameters)


def attention_case(
    kernel: str, direction: str, heads: tuple[int, int, int], head_dim: int, rows: int, columns: int,
    window: tuple[int | None, int | None], *, dtype: str = "bf16", delta: bool = False, priority: int = 0,
    kind: str = "attention",
) -> Case:  # fmt: skip
    """A call of an attention kernel on one segment; ``delta``: backward is given it."""
    batch, query_heads, kv_heads = heads
    parameters: dict[str, Value] = {
        "kernel": kernel, "direction": direction, "batch": batch, "heads": query_heads, "kv_heads": kv_heads,
        "head_dim": head_dim, "dtype": dtype, "rows": rows, "columns": columns, "left": window[0], "right": window[1],
    }  # fmt: skip
    if delta:
        parameters["delta"] = True
    return Case(kind, parameters, priority)


def kernel_plan(seed: int = 0) -> list[Case]:
    """Attention, GEMM and host cost on one GPU; memory-bound operations are `elementwise.elementwise_cases`."""
    cases = [
        *_gemms(), *_hosts(), *_sustained(), *_windows(), *_documents(), *_decoding(), *_squares(), *_rectangles(),
        *_deltas(), *_own_kernels(),
    ]  # fmt: skip
    return ordered(cases, seed)


def ordered(cases: Sequence[Case], seed: int = 0) -> list[Case]:
    """By priority, and shuffled within it: a slow drift of the machine then looks like noise, not like a trend.

    Cases of one attention problem stay together, because they share its inputs.
    """
    draw = random.Random(seed)
    groups: dict[tuple[int, str], list[Case]] = {}
    for case in cases:
        shared = {name: value for name, value in case.parameters.items() if name not in ("direction", "delta")}
        groups.setdefault((case.priority, record_key(case.kind, shared)), []).append(case)
    shuffled = sorted(groups.items(), key=lambda item: (item[0][0], draw.random()))
    return [case for _, group in shuffled for case in group]


def _both(*args: object, **options: object) -> Iterator[Case]:
    kernel, *rest = args
    for direction in ("forward", "backward"):
        yield attention_case(kernel, direction, *rest, **options)  # type: ignore[arg-type]


def _squares() -> Iterator[Case]:
    """Whole attention over all lengths; head dim 128 before 64."""
    for number, (head_dim, mask, kernel) in enumerate(product((128, 64), MASKS, FAST_KERNELS)):
        priority = 2 if head_dim == 128 else 3
        for place, length in enumerate(LENGTHS):
            for heads in (HEADS[(3 * place + number // 2 + step) % len(HEADS)] for step in range(3)):
                yield from _both(kernel, heads, head_dim, length, length, MASKS[mask], priority=priority)
        for length, choices in LONG.items():
            for heads in choices:
                yield from _both(kernel, heads, head_dim, length, length, MASKS[mask], priority=priority)


def _rectangles() -> Iterator[Case]:
    """Steps of a ring: half of the rows or half of the columns; and queries at the end of more keys."""
    for kernel, (place, length) in product(FAST_KERNELS, enumerate((2048, 8192, 24576, 65536))):
        for rows, columns in ((length, length // 2), (length // 2, length)):
            yield from _both(kernel, HEADS[place], 128, rows, columns, MASKS["full"], priority=4)
    for place, (rows, columns) in enumerate(((1024, 4096), (8192, 32768), (4096, 65536))):
        yield from _both("flash2", HEADS[place], 128, rows, columns, MASKS["causal"], priority=4)


def _windows() -> Iterator[Case]:
    """Sliding windows, which flash-attention has and cuDNN here has not: an eighth of the length and less."""
    for head_dim, (place, (length, window)) in product((128, 64), enumerate(WINDOWS)):
        yield from _both("flash2", HEADS[place], head_dim, length, length, (window, 0), priority=2)
        if place % 2:
            yield from _both("flash2", HEADS[place], head_dim, length, length, (window, window), priority=4)


def _documents() -> Iterator[Case]:
    """Packed documents in one variable-length launch: even ones, and uneven ones."""
    for head_dim, (place, lengths), mask in product((128, 64), enumerate(DOCUMENTS), MASKS):
        total = sum(lengths)
        for case in _both("flash2", HEADS[place % len(HEADS)], head_dim, total, total, MASKS[mask], priority=2):
            yield Case(case.kind, case.parameters | {"documents": "+".join(map(str, lengths))}, case.priority)


def _decoding() -> Iterator[Case]:
    """Few queries at the end of many keys, as a decoding step has them."""
    shapes = ((1, 32, 8), (8, 32, 8), (1, 64, 8), (16, 8, 1), (4, 32, 32), (2, 16, 2))
    for (place, columns), rows in product(enumerate((2048, 8192, 32768, 131072)), (1, 4, 16)):
        for kernel, step in product(FAST_KERNELS, (0, 1)):
            heads = shapes[(place + rows + 3 * step) % len(shapes)]
            mask = "full" if kernel == "cudnn" or rows == 1 else "causal"
            yield attention_case(kernel, "forward", heads, 128, rows, columns, MASKS[mask], priority=2)


def _deltas() -> Iterator[Case]:
    """Backward that is given delta (Burst)."""
    for kernel, (place, length) in product(FAST_KERNELS, enumerate((2048, 8192, 32768))):
        yield attention_case(
            kernel, "backward", HEADS[place], 128, length, length, MASKS["causal"], delta=True, priority=4
        )


def _own_kernels() -> Iterator[Case]:
    """Triton and Flex, which compile for seconds: few."""
    for head_dim, mask, (place, length) in product((128, 64), MASKS, enumerate((2048, 6144, 16384, 49152))):
        yield from _both("triton", HEADS[place], head_dim, length, length, MASKS[mask], priority=6)
    for place, (length, mask) in enumerate(((4096, "causal"), (16384, "causal"), (8192, "full"), (2048, "causal"))):
        yield from _both("flex", HEADS[place], 128, length, length, MASKS[mask], priority=7)


def _sustained() -> Iterator[Case]:
    """Without rests: long calls, and short ones whose work adds up."""
    shapes = (((1, 32, 8), 128, 16384, "causal"), ((2, 16, 4), 64, 4096, "full"), ((1, 40, 8), 128, 6144, "causal"))
    for (heads, head_dim, length, mask), kernel in product(shapes, FAST_KERNELS):
        for direction in ("forward", "backward"):
            yield attention_case(
                kernel, direction, heads, head_dim, length, length, MASKS[mask], priority=1, kind="sustained"
            )


def _gemms() -> Iterator[Case]:
    """Products of a layer (projections and MLP of 8B and 70B models) over token counts, and a square one."""
    sizes = ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (10240, 8192), (8192, 28672))
    for tokens, (n, k) in product((512, 1536, 4096, 12288, 32768), sizes):
        yield Case("gemm", {"m": tokens, "n": n, "k": k, "dtype": "bf16"}, 1)
    yield Case("gemm", {"m": 8192, "n": 8192, "k": 8192, "dtype": "bf16"}, 1)


def _hosts() -> Iterator[Case]:
    for kernel in (*FAST_KERNELS, "triton"):
        for direction in ("forward", "backward"):
            yield Case(
                "host", {"what": "attention", "kernel": kernel, "direction": direction}, 0 if kernel != "triton" else 6
            )
    for what in ("merge", "row_dot", "accumulate", "cast", "gemm"):
        yield Case("host", {"what": what}, 0)
    for kernel, collected in product(FAST_KERNELS, (False, True)):
        yield Case("host", {"what": "start", "kernel": kernel, "collected": collected}, 0)

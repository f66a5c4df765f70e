"""What fits are judged by and never see: lengths, head counts and layers that no other plan has.

Records of these cases say ``fresh``; `cost_models.calibration` leaves them out of every fit and reports its errors on
them. They are not to be looked at while a model is made: once seen, they judge no longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from validators.bench.plan import FAST_KERNELS, MASKS, Case, attention_case

LENGTHS = (640, 2560, 5000, 10240, 20480, 45056)
HEADS = ((1, 24, 8), (2, 20, 4), (1, 48, 8), (1, 28, 4), (3, 6, 6), (1, 14, 2))
WINDOWS = ((5120, 767), (20480, 2559), (40960, 10239))
DOCUMENTS = ((2560,) * 4, (640, 9600, 1280, 5120), (640,) * 20)
SIZES = ((5120, 3072), (8192, 3072), (3072, 8192), (13824, 5120), (5120, 13824), (32000, 4096))
"""(outputs, inputs) of layers of 3B and 13B models, and a head."""
TOKENS = (1024, 6144, 20480)


def fresh_cases() -> list[Case]:
    """Attention forward and backward, and products."""
    cases = [*_squares(), *_packed(), *_products()]
    return [replace(case, parameters=case.parameters | {"fresh": True}) for case in cases]


def _squares() -> Iterator[Case]:
    masks = list(MASKS.values())
    for (place, length), head_dim, kernel in product(enumerate(LENGTHS), (128, 64), FAST_KERNELS):
        heads = HEADS[(place + (head_dim == 64)) % len(HEADS)]
        for mask, direction in product(masks, ("forward", "backward")):
            yield attention_case(kernel, direction, heads, head_dim, length, length, mask, priority=1)


def _packed() -> Iterator[Case]:
    """Windows and documents, which flash-attention has."""
    for (place, (length, window)), head_dim, direction in product(
        enumerate(WINDOWS), (128, 64), ("forward", "backward")
    ):
        yield attention_case("flash2", direction, HEADS[place], head_dim, length, length, (window, 0), priority=1)
    for (place, lengths), head_dim, direction in product(enumerate(DOCUMENTS), (128, 64), ("forward", "backward")):
        total = sum(lengths)
        case = attention_case("flash2", direction, HEADS[place], head_dim, total, total, (None, 0), priority=1)
        yield replace(case, parameters=case.parameters | {"documents": "+".join(map(str, lengths))})


def _products() -> Iterator[Case]:
    for tokens, (n, k) in product(TOKENS, SIZES):
        yield Case("gemm", {"m": tokens, "n": n, "k": k, "dtype": "bf16"}, 1)

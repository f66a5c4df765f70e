"""Casts to FP8 (`simulator.layers.fp8`): values rounded to what FP8 holds, kept in the dtype in which all is executed.

Products of them then need no kernels of their own, and say what FP8 products compute but for the order of sums.
"""

from __future__ import annotations

import typing

import torch
from torch import Tensor

from simulator.layers.fp8 import E4M3, E5M2
from simulator.program.operations import Operation
from validators.executors.local import LocalOperations, Perform

FORMS = {E4M3: torch.float8_e4m3fn, E5M2: torch.float8_e5m2}


def rounded(values: Tensor, form: str, largest: Tensor | None = None) -> Tensor:
    """Values as FP8 holds them, scaled so that ``largest`` (theirs by default) is the format's largest."""
    largest = values.abs().max() if largest is None else largest
    if not values.numel() or not float(largest):
        return values.clone()
    scale = torch.finfo(FORMS[form]).max / largest
    return (values * scale).float().to(FORMS[form]).to(values.dtype) / scale


def amax(local: LocalOperations, operation: Operation) -> None:
    """Largest magnitude."""
    (values,), (largest,) = local.reads(operation), local.writes(operation)
    largest.copy_(values.abs().max() if values.numel() else torch.zeros(()))


def quantise(local: LocalOperations, operation: Operation) -> None:
    """Rounded values, once or twice (transposed on a GPU)."""
    values, largest = local.reads(operation)
    found = rounded(values, typing.cast(str, operation.options["form"]), largest.flatten()[0])
    for target in local.writes(operation):
        target.copy_(found)


KINDS: dict[str, Perform] = {"amax": amax, "quantise": quantise}

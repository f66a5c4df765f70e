"""Dense products, as PyTorch does them (cuBLAS)."""

from __future__ import annotations

from typing import cast

import torch

from validators.bench.attention import DTYPES, WrongResultError
from validators.bench.plan import Case
from validators.bench.timing import Call, Timer

TOLERANCE = 6e-3


def run_gemm(case: Case, timer: Timer) -> tuple[list[float], dict[str, float]]:
    """Samples in seconds and the error of a product."""
    call, errors = prepare_gemm(case, timer.device)
    return timer.measure(call), errors


def prepare_gemm(case: Case, device: torch.device) -> tuple[Call, dict[str, float]]:
    """A product as a layer of n outputs and k inputs has it, and the error of 256 sampled rows.

    Forward y = x w^T, or as the case's form says dx = dy w or dw = dy^T x, of m tokens.

    Raises
    ------
    WrongResultError
        Where the product is something else.
    """
    m, n, k = (cast(int, case.parameters[name]) for name in ("m", "n", "k"))
    form, dtype = case.parameters.get("form"), DTYPES[str(case.parameters["dtype"])]
    generator = torch.Generator(device).manual_seed(0)
    x, dy, w = (torch.randn(*size, generator=generator, device=device, dtype=dtype)
                for size in ((m, k), (m, n), (n, k)))  # fmt: skip
    a, b = {None: (x, w.T), "dx": (dy, w), "dw": (dy.T, x)}[form if form is None else str(form)]
    rows = torch.randperm(len(a), generator=torch.Generator().manual_seed(0))[:256].to(device)
    got, want = (a @ b)[rows].double(), a[rows].double() @ b.double()
    errors = {"product": float(torch.nan_to_num((got - want).norm() / want.norm(), nan=torch.inf))}
    if errors["product"] > TOLERANCE:
        raise WrongResultError(errors)
    return lambda: a @ b, errors

"""Dense products, as PyTorch does them (cuBLAS)."""

from __future__ import annotations

from typing import cast

import torch

from validators.bench.attention import DTYPES, WrongResultError
from validators.bench.plan import Case
from validators.bench.timing import Timer

TOLERANCE = 6e-3


def run_gemm(case: Case, timer: Timer) -> tuple[list[float], dict[str, float]]:
    """Samples in seconds and the error of 256 sampled rows: x [m, k] times w [n, k] transposed, as in a layer."""
    m, n, k = (cast(int, case.parameters[name]) for name in ("m", "n", "k"))
    dtype, generator = DTYPES[str(case.parameters["dtype"])], torch.Generator(timer.device).manual_seed(0)
    x = torch.randn(m, k, generator=generator, device=timer.device, dtype=dtype)
    w = torch.randn(n, k, generator=generator, device=timer.device, dtype=dtype)
    rows = torch.randperm(m, generator=torch.Generator().manual_seed(0))[:256].to(timer.device)
    got, want = (x @ w.T)[rows].double(), x[rows].double() @ w.double().T
    errors = {"product": float(torch.nan_to_num((got - want).norm() / want.norm(), nan=torch.inf))}
    if errors["product"] > TOLERANCE:
        raise WrongResultError(errors)
    return timer.measure(lambda: x @ w.T), errors

"""Backward kernels with 32-bit indices: a simulation warns where they would overflow, the executor refuses."""

from __future__ import annotations

import pytest
import torch

import attnsim
from cost_models.kernels import check_backward_size
from traces.errors import InputError


@pytest.mark.parametrize(("kernel", "what"), [("flash2", "illegal access"), ("cudnn", "wrong dQ and dK")])
def test_beyond_32_bits_is_refused_with_what_would_happen(kernel: str, what: str) -> None:
    check_backward_size(kernel, 2**31)
    with pytest.raises(InputError, match=what) as refused:
        check_backward_size(kernel, 2**31 + 1)
    assert "2,147,483,649 elements" in refused.value.message and "triton" in refused.value.message


def test_kernels_with_wide_indices_are_not() -> None:
    check_backward_size("triton", 2**33)


def warned(batch: int, gpus: int, pass_: str, kernel: str) -> bool:
    """Of a simulation with 2^26 elements of Q for each batch row."""
    result = attnsim.simulate(
        seq_len=16384, gpus=gpus, schedule="ring", heads=32, kv_heads=4, head_dim=128, hardware="h100-sxm",
        topology="dgx-h100", batch=batch, pass_=pass_, kernel=kernel,
    )  # fmt: skip
    return any("more than 2^31 elements: use the kernel triton" in each for each in result.warnings)


@pytest.mark.parametrize("kernel", ["flash2", "cudnn"])
def test_simulations_warn_of_what_a_rank_cannot_run(kernel: str) -> None:
    assert warned(33, 1, "both", kernel)
    assert not warned(33, 1, "forward", kernel)
    assert not warned(33, 2, "both", kernel)
    assert not warned(33, 1, "both", "triton")


@pytest.mark.parametrize("name", ["flash", "cudnn"])
def test_executors_refuse_it_before_a_kernel_runs(name: str) -> None:
    """Tensors of no memory have as many elements."""
    from validators.kernels.cudnn import CudnnKernel
    from validators.kernels.flash import Flash2Kernel

    kernel = {"flash": Flash2Kernel, "cudnn": CudnnKernel}[name]()
    large = torch.empty(1, dtype=torch.bfloat16, device="meta").expand(1, 2**20 + 1, 16, 128)
    with pytest.raises(InputError, match="more than 2"):
        kernel.backward(large, large, large, large, large, large, None, delta=False)  # type: ignore[arg-type]

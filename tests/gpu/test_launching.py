"""Kernels of Triton that are launched again do what they did: on other tensors, aligned or not."""

from __future__ import annotations

import pytest
import torch

from validators.kernels import fused, triton_fused, triton_pointwise


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(*shape, generator=generator, device="cuda").to(dtype)


@pytest.mark.parametrize("shift", [0, 1])
def test_swiglu_again_on_other_tensors(shift: int) -> None:
    """Unaligned tensors begin 4 bytes after an aligned address, and take Triton's own way."""
    for seed in range(4):
        gate, up, h = (draw(4097, seed=seed + 10 * number)[shift : 4096 + shift] for number in range(3))
        triton_pointwise.swiglu(gate, up, h)
        torch.testing.assert_close(h, torch.nn.functional.silu(gate) * up, atol=1e-6, rtol=1e-5)


def test_rms_norm_again_with_other_features() -> None:
    for features in (64, 64, 80, 64, 80):
        x, gain, y, rstd = (
            draw(2, 9, 1, features, seed=1),
            draw(features, seed=2),
            draw(2, 9, 1, features, seed=3),
            None,
        )
        rstd = torch.zeros(2, 1, 9, device="cuda")
        triton_pointwise.rms_norm(x, gain, y, rstd, 1e-5)
        factor = (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
        torch.testing.assert_close(y, x * factor * gain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merges_again(dtype: torch.dtype) -> None:
    for seed in range(3):
        o, part = draw(2, 33, 4, 64, seed=seed), draw(2, 33, 4, 64, seed=seed + 9, dtype=dtype)
        lse, part_lse = draw(2, 4, 33, seed=seed + 20), draw(2, 4, 33, seed=seed + 30)
        want, want_lse = o.cpu().clone(), lse.cpu().clone()
        fused.merge_into(want, want_lse, part.cpu().float(), part_lse.cpu())
        triton_fused.merge_into(o, lse, part, part_lse)
        torch.testing.assert_close(o.cpu(), want, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(lse.cpu(), want_lse, atol=1e-5, rtol=1e-5)


def test_copies_again_whatever_the_strides() -> None:
    for seed in range(3):
        source = draw(2, 6, 5, 32, seed=seed).transpose(1, 2)
        target = torch.zeros(2, 5, 6, 32, device="cuda", dtype=torch.bfloat16)
        fused.copy_into(target, source)
        assert torch.equal(target, source.bfloat16())
        fused.add_into(target, source)
        torch.testing.assert_close(target.float(), 2 * source, atol=5e-2, rtol=2e-2)

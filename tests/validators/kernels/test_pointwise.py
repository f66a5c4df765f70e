"""Kernels of layers do what their formulas say: Triton (interpreted without a GPU) against PyTorch in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from simulator.steps.parameters import ADAMW
from validators.kernels import pointwise, triton_pointwise

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Draw = Callable[..., torch.Tensor]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def both(name: str, *tensors: torch.Tensor, options: tuple[object, ...] = ()) -> list[tuple[torch.Tensor, ...]]:
    """All tensors, and what is returned, after a call in float64 and after one in fp32 by Triton."""
    results = []
    for module, dtype, device in ((pointwise, torch.float64, "cpu"), (triton_pointwise, torch.float32, DEVICE)):
        own = [each.clone().to(device, dtype if each.is_floating_point() else each.dtype) for each in tensors]
        returned = getattr(module, name)(*own, *options)
        results.append(tuple(each.double().cpu() for each in (*own, *([] if returned is None else [returned]))))
    return results


def close(name: str, *tensors: torch.Tensor, options: tuple[object, ...] = ()) -> None:
    for want, got in zip(*both(name, *tensors, options=options), strict=True):
        torch.testing.assert_close(got, want, atol=2e-5, rtol=2e-5)


FEATURES = (48, 160)


@pytest.mark.parametrize("features", FEATURES)
def test_rms_norm(features: int) -> None:
    x, gain, rows = draw(2, 37, 1, features), draw(features, seed=1), torch.zeros(2, 1, 37, dtype=torch.float64)
    close("rms_norm", x, gain, torch.zeros_like(x), rows, options=(1e-5,))


@pytest.mark.parametrize("features", FEATURES)
def test_rms_norm_backward(features: int) -> None:
    dy, x, gain = draw(2, 37, 1, features), draw(2, 37, 1, features, seed=1), draw(features, seed=2)
    rows = draw(2, 1, 37, seed=3).abs()
    close("rms_norm_dx", dy, x, gain, rows, torch.zeros_like(x))
    close("rms_norm_dw", dy, x, rows)


@pytest.mark.parametrize(("heads", "dims"), [(3, 24), (4, 16)])
def test_rope_turns_the_last_features(heads: int, dims: int) -> None:
    x, positions = draw(2, 9, heads, 24), torch.tensor([0, 1, 5, 7, 100, 1000, 65535, 131072, 3])
    rates = 10000.0 ** (-torch.arange(0, dims, 2, dtype=torch.float64) / dims)
    turned = {}
    for module, dtype in ((pointwise, torch.float64), (triton_pointwise, torch.float32)):
        own = x.to(dtype).to(DEVICE if dtype == torch.float32 else "cpu")
        for sign in (1, -1):
            module.rope(own, positions.to(own.device), rates.to(own.device), sign)
            turned.setdefault(sign, []).append(own.double().cpu().clone())
    torch.testing.assert_close(turned[1][1], turned[1][0], atol=1e-5, rtol=0)
    torch.testing.assert_close(turned[-1][1], x, atol=1e-5, rtol=0)
    assert (turned[1][0] - x)[:, 1:, :, -dims:].abs().max() > 0.5
    assert torch.equal(turned[1][1][..., : 24 - dims], x.float().double()[..., : 24 - dims])


def test_swiglu() -> None:
    gate, up, dh = draw(2, 37, 1, 48), draw(2, 37, 1, 48, seed=1), draw(2, 37, 1, 48, seed=2)
    close("swiglu", gate, up, torch.zeros_like(gate))
    close("swiglu_backward", dh, gate, up, torch.zeros_like(gate), torch.zeros_like(gate))


@pytest.mark.parametrize(("words", "offset"), [(300, 0), (5000, 0), (300, 200)])
def test_cross_entropy(words: int, offset: int) -> None:
    logits, rows = draw(2, 19, 1, words) * 5, torch.zeros(2, 1, 19, dtype=torch.float64)
    labels = torch.randint(0, words + offset, (2, 1, 19), generator=torch.Generator().manual_seed(1))
    close("cross_entropy", logits, labels, rows, rows.clone(), options=(offset,))
    lse = torch.logsumexp(logits[:, :, 0], dim=-1)[:, None]
    for factors in (torch.tensor([0.25], dtype=torch.float64), torch.tensor([0.5, -2.0], dtype=torch.float64)):
        close("cross_entropy_backward", logits, labels, lse, factors, torch.zeros_like(logits), options=(offset,))


def test_cross_entropy_backward_in_place() -> None:
    logits, labels = draw(1, 19, 1, 300).float().to(DEVICE), torch.arange(19).view(1, 1, 19).to(DEVICE)
    lse, factors = torch.logsumexp(logits[:, :, 0], dim=-1)[:, None], torch.ones(1, device=DEVICE)
    apart = torch.zeros_like(logits)
    triton_pointwise.cross_entropy_backward(logits, labels, lse, factors, apart, 0)
    triton_pointwise.cross_entropy_backward(logits, labels, lse, factors, logits, 0)
    torch.testing.assert_close(logits, apart)


def test_adamw() -> None:
    grad, m, v, master = (draw(1, 33, 1, 70, seed=seed) for seed in range(4))
    close("adamw", grad, m, v.abs(), master, torch.zeros_like(master), options=(ADAMW,))

"""The fused memory-bound kernels do what their formulas say, in PyTorch and in Triton (interpreted without a GPU)."""

from __future__ import annotations

import pytest
import torch

from validators.dense import dense_backward, dense_forward, row_dot
from validators.kernels import fused, triton_fused

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BOTH = pytest.mark.parametrize("kernels", [fused, triton_fused], ids=["torch", "triton"])


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE, dtype)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_merge_of_two_halves_of_the_keys_is_the_whole(kernels, dtype: torch.dtype) -> None:
    q, k, v = draw(2, 37, 3, 24, seed=1) * 4, draw(2, 50, 3, 24, seed=2), draw(2, 50, 3, 24, seed=3)
    whole, whole_lse = dense_forward(q, k, v, None)
    (o, lse), (part, part_lse) = (
        dense_forward(q, k[:, :20], v[:, :20], None),
        dense_forward(q, k[:, 20:], v[:, 20:], None),
    )
    running, running_lse = o.contiguous(), lse.contiguous()
    kernels.merge_into(running, running_lse, part.to(dtype), part_lse)
    torch.testing.assert_close(running, whole, atol=1e-5 if dtype == torch.float32 else 2e-3, rtol=0)
    torch.testing.assert_close(running_lse, whole_lse, atol=1e-5, rtol=0)


@BOTH
def test_merge_of_rows_without_keys_and_of_extreme_scores(kernels) -> None:
    nothing = -torch.inf
    lse = torch.tensor([[[nothing, 1.0, nothing, 80.0, -80.0]]], device=DEVICE)
    part_lse = torch.tensor([[[2.0, nothing, nothing, -80.0, 80.0]]], device=DEVICE)
    o, part = torch.zeros(1, 5, 1, 16, device=DEVICE), torch.full((1, 5, 1, 16), 3.0, device=DEVICE)
    o[:, 1], o[:, 3], o[:, 4] = 1.0, 1.0, 1.0
    kernels.merge_into(o, lse, part, part_lse)
    assert o[0, :, 0, 0].tolist() == [3.0, 1.0, 0.0, 1.0, 3.0]
    assert lse[0, 0].tolist() == [2.0, 1.0, nothing, 80.0, 80.0]


@BOTH
def test_merge_of_slices_leaves_the_rest_alone(kernels) -> None:
    o, lse = torch.zeros(2, 40, 3, 16, device=DEVICE), torch.zeros(2, 3, 40, device=DEVICE)
    part, part_lse = torch.ones(2, 40, 3, 16, device=DEVICE), torch.zeros(2, 3, 40, device=DEVICE)
    rows = slice(5, 33)
    kernels.merge_into(o[:, rows], lse[:, :, rows], part[:, rows], part_lse[:, :, rows])
    assert (o[:, rows] == 0.5).all() and (o[:, :5] == 0).all() and (o[:, 33:] == 0).all()
    assert (lse[:, :, :5] == 0).all() and (lse[:, :, 33:] == 0).all()


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gathered_rows_are_those_of_their_tokens(kernels, dtype: torch.dtype) -> None:
    """Of two ranks' slices, one after the other, into three groups; -1 has no row."""
    source = draw(2, 3, 10, 4, 24, seed=1, dtype=dtype)
    rows = torch.tensor([19, 0, 7, 10, -1, 3, 3, 12, 9, -1, 1, 2], device=DEVICE)
    target = torch.full((3, 3, 4, 4, 24), torch.nan, dtype=dtype, device=DEVICE)
    kernels.gather_rows(target, source, rows)
    for number, row in enumerate(rows.tolist()):
        got = target[number // 4, :, number % 4]
        want = source[row // 10, :, row % 10] if row >= 0 else torch.zeros_like(got)
        assert torch.equal(got, want), number


@BOTH
def test_row_dot(kernels) -> None:
    do, o, delta = draw(2, 37, 3, 24, seed=1), draw(2, 37, 3, 24, seed=2), torch.empty(2, 3, 37, device=DEVICE)
    kernels.row_dot(do, o, delta)
    torch.testing.assert_close(delta, row_dot(do, o))


@BOTH
@pytest.mark.parametrize("scale", [1.0, 1e-30])
def test_output_with_delta_gives_the_gradients_of_the_real_output(kernels, scale: float) -> None:
    q, k, v = (draw(2, 37, 3, 24, seed=seed) for seed in (1, 2, 3))
    do = draw(2, 37, 3, 24, seed=4) * scale
    do[:, 7] = 0
    o, lse = dense_forward(q, k, v, None)
    delta = row_dot(do, o).contiguous()
    stand_in = kernels.output_with_delta(do, delta)
    torch.testing.assert_close(row_dot(do, stand_in) / scale, delta / scale)
    real = dense_backward(q, k, v, do / scale, lse, delta / scale, None)
    ours = dense_backward(q, k, v, do / scale, lse, row_dot(do, stand_in) / scale, None)
    for got, want in zip(ours, real, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def test_triton_moves_rows_whatever_strides_and_dtypes() -> None:
    """Packing for an all-to-all, a sum of bf16 into fp32, and a widening copy into a slice."""
    from validators.kernels.triton_fused import move

    source = torch.randn(2, 5, 6, 24, device=DEVICE)
    packed = torch.zeros(3, 2, 5, 2, 24, device=DEVICE, dtype=torch.float16)  # the interpreter truncates to bf16
    spread = source.view(2, 5, 3, 2, 24).permute(2, 0, 1, 3, 4)
    move(packed, spread, add=False)
    assert torch.equal(packed, spread.to(torch.float16))
    total = torch.randn(2, 9, 6, 24, device=DEVICE)
    want = total.clone()
    want[:, 3:8] += source.to(torch.bfloat16)
    move(total[:, 3:8], source.to(torch.bfloat16), add=True)
    assert torch.equal(total, want)
    repeated = torch.zeros(6, 2, 2, 5, 24, device=DEVICE)
    each = source.permute(2, 0, 1, 3).unsqueeze(1)
    move(repeated, each.expand_as(repeated), add=False)
    assert torch.equal(repeated, each.expand_as(repeated))

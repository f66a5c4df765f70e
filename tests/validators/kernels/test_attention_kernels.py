"""Every kernel that runs here against dense attention in float64: windows, GQA, unequal lengths and head dims."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cost_models.masks import KernelCall, Segment, TokenRange, apb_mask, lower
from traces.errors import InputError
from validators.dense import dense_backward, dense_forward, row_dot
from validators.kernels import KERNEL_NAMES, build_attention_kernel, why_unavailable
from validators.kernels.dense import window
from validators.kernels.triton_kernel import TritonKernel

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KERNELS = [name for name in KERNEL_NAMES if not why_unavailable(name)]
WINDOWS = {
    "full": (37, 37, None, None),
    "full, more keys": (21, 50, None, None),
    "causal": (37, 37, None, 0),
    "causal, more keys": (21, 50, None, 0),
    "window": (40, 40, 9, 0),
    "two-sided window": (40, 33, 12, 15),
    "left alone": (40, 40, 5, None),
}


class Problem:
    """Random inputs, and the dense results in float64."""

    def __init__(self, rows: int, columns: int, call: KernelCall, heads: int = 2, kv_heads: int = 1, v_dim: int = 24):
        generator = torch.Generator().manual_seed(rows * 1000 + columns)
        shapes = {"q": (rows, heads, 24), "k": (columns, kv_heads, 24), "v": (columns, kv_heads, v_dim),
                  "do": (rows, heads, v_dim)}  # fmt: skip
        self.wide = {n: torch.randn(2, *s, generator=generator, dtype=torch.float64) for n, s in shapes.items()}
        self.wide["q"] *= 4
        self.call = call
        q, k, v, do = self.wide.values()
        allowed = window(call, rows, columns)
        self.o, self.lse = dense_forward(q, k, v, allowed)
        self.delta = row_dot(do, self.o)
        self.gradients = dense_backward(q, k, v, do, self.lse, self.delta, allowed)

    def narrow(self) -> tuple[Tensor, ...]:
        return tuple(each.to(DEVICE, torch.float32) for each in (*self.wide.values(), self.lse, self.o, self.delta))


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got.cpu().double(), want, atol=3e-5, rtol=3e-5)


def build(name: str, shape: str, **options: int) -> tuple[object, Problem]:
    rows, columns, left, right = WINDOWS[shape]
    return build_attention_kernel(name), Problem(rows, columns, KernelCall((), left, right), **options)


@pytest.mark.parametrize("shape", WINDOWS)
@pytest.mark.parametrize("name", KERNELS)
def test_forward_and_backward(name: str, shape: str) -> None:
    kernel, problem = build(name, shape)
    q, k, v, do, lse, o, delta = problem.narrow()
    got_o, got_lse = kernel.forward(q, k, v, problem.call)
    close(got_o, problem.o)
    close(got_lse, problem.lse)
    for row, given in ((o, False), (delta, True)):
        for got, want in zip(
            kernel.backward(q, k, v, do, lse, row, problem.call, delta=given), problem.gradients, strict=True
        ):
            close(got, want)


@pytest.mark.parametrize("name", ["triton", "dense"])
def test_value_dim_of_its_own(name: str) -> None:
    kernel, problem = build(name, "causal", v_dim=16)
    q, k, v, do, lse, _, delta = problem.narrow()
    close(kernel.forward(q, k, v, problem.call)[0], problem.o)
    for got, want in zip(
        kernel.backward(q, k, v, do, lse, delta, problem.call, delta=True), problem.gradients, strict=True
    ):
        close(got, want)


@pytest.mark.parametrize("name", KERNELS)
def test_lse_is_a_natural_logarithm(name: str) -> None:
    """Of one key it is the score."""
    q, k, v = torch.full((1, 1, 1, 16), 0.5), torch.full((1, 1, 1, 16), 3.0), torch.ones(1, 1, 1, 16)
    _, lse = build_attention_kernel(name).forward(*(each.to(DEVICE) for each in (q, k, v)), KernelCall((), None, None))
    assert lse.item() == pytest.approx(0.5 * 3 * 16 / 4)


def test_triton_continues_a_running_result() -> None:
    """LAO: the keys in three calls, the second of which sees only some rows, give the attention to all of them."""
    problem = Problem(40, 60, KernelCall((), None, None), heads=4, kv_heads=4)
    q, k, v, *_ = problem.narrow()
    o, lse = torch.zeros(2, 40, 4, 24, device=DEVICE), torch.full((2, 4, 40), -torch.inf, device=DEVICE)
    for rows, columns in (((0, 40), (0, 20)), ((0, 17), (20, 60)), ((17, 40), (20, 60))):
        call = KernelCall((Segment(*rows, *columns),), None, None)
        TritonKernel().run_forward(q, k, v, call, o, lse, running=True)
    close(o, problem.o)
    close(lse, problem.lse)


def test_triton_does_apb_in_one_launch() -> None:
    """Anchor rows see the anchor; local rows what was passed, the anchor, and local rows up to themselves."""
    before, anchor, block = 21, 10, 40
    mask, rows, columns = apb_mask(before, anchor, block), anchor + block, before + anchor + block
    (call,) = lower(mask, (TokenRange(0, rows),), (TokenRange(0, columns),), columns).calls
    assert len(call.segments) == 2
    problem = Problem(rows, columns, KernelCall((), None, None), heads=4, kv_heads=2)
    q, k, v, *_ = problem.narrow()
    o, lse = torch.full((2, rows, 4, 24), torch.nan, device=DEVICE), torch.full((2, 4, rows), torch.nan, device=DEVICE)
    TritonKernel().run_forward(q, k, v, call, o, lse)
    i, j = torch.arange(rows)[:, None], torch.arange(columns)[None, :]
    allowed = torch.where(i < anchor, (j >= before) & (j - before <= i), j - before <= i)
    want, want_lse = dense_forward(problem.wide["q"], problem.wide["k"], problem.wide["v"], allowed)
    close(o, want)
    close(lse, want_lse)


def test_triton_does_packed_documents_in_one_launch() -> None:
    segments = tuple(Segment(a, b, a, b) for a, b in ((0, 17), (17, 20), (24, 61)))
    call = KernelCall(segments, None, 0)
    problem = Problem(64, 64, KernelCall((), None, 0), heads=4, kv_heads=2)
    q, k, v, do, *_ = problem.narrow()
    kernel, o, lse = TritonKernel(), torch.zeros(2, 64, 4, 24, device=DEVICE), torch.zeros(2, 4, 64, device=DEVICE)
    kernel.run_forward(q, k, v, call, o, lse)
    gradients = tuple(torch.zeros_like(each) for each in (q, k, v))
    delta = row_dot(do, o).contiguous()
    kernel.run_backward(q, k, v, do, lse, delta, call, gradients)
    assert (o[:, 20:24] == 0).all() and (o[:, 61:] == 0).all() and (gradients[0][:, 61:] == 0).all()
    for segment in segments:
        rows = slice(segment.q_start, segment.q_stop)
        wide = [each[:, rows] for each in problem.wide.values()]
        allowed = window(KernelCall((), None, 0), segment.q_stop - segment.q_start, segment.q_stop - segment.q_start)
        want, want_lse = dense_forward(*wide[:3], allowed)
        close(o[:, rows], want)
        close(lse[:, :, rows], want_lse)
        wanted = dense_backward(*wide, want_lse, row_dot(wide[3], want), allowed)
        for got, expected in zip(gradients, wanted, strict=True):
            close(got[:, rows], expected)


def test_triton_refuses_gradients_of_shared_columns() -> None:
    q = torch.zeros(1, 8, 1, 16, device=DEVICE)
    call = KernelCall((Segment(0, 4, 0, 4), Segment(4, 8, 2, 8)), None, None)
    rows = torch.zeros(1, 1, 8, device=DEVICE)
    with pytest.raises(InputError, match="share columns"):
        TritonKernel().run_backward(q, q, q, q, rows, rows, call, (q, q, q))


def test_unknown_and_unavailable_kernels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="unknown kernel"):
        build_attention_kernel("flash9")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="cudnn cannot run here: got no CUDA device"):
        build_attention_kernel("cudnn")

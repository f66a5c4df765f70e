"""Every kernel of this GPU against dense attention in float64: windows, GQA, head dims, uneven scores.

Run on a GPU node: ``pytest -m gpu tests/gpu``.
"""

from __future__ import annotations

from itertools import product

import pytest
import torch

from cost_models.masks import KernelCall, Segment
from traces.errors import InputError
from validators.bench.checks import TOLERANCE
from validators.dense import dense_backward, dense_forward, row_dot
from validators.executors.local import SegmentsKernel
from validators.kernels import KERNEL_NAMES, build_attention_kernel, fused, why_unavailable
from validators.kernels.dense import window
from validators.kernels.triton_kernel import TritonKernel

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

KERNELS = [name for name in KERNEL_NAMES if name not in ("cpu", "dense", "flex") and not why_unavailable(name)]
WINDOWS = {
    "full": (1024, 1024, None, None),
    "full, more keys": (512, 1088, None, None),
    "causal": (1088, 1088, None, 0),
    "causal, more keys": (512, 1024, None, 0),
    "window": (1024, 1024, 200, 0),
    "two-sided window": (1024, 1024, 130, 70),
}
SHAPES = ((2, 4, 4, 128), (1, 8, 2, 64), (1, 4, 1, 128))
"""(batch, heads, kv heads, head dim)."""


def draw(rows: int, columns: int, shape: tuple[int, int, int, int], q_scale: float) -> list[torch.Tensor]:
    batch, heads, kv_heads, dim = shape
    torch.manual_seed(torch.seed() % 2**31)
    sizes = ((rows, heads), (columns, kv_heads), (columns, kv_heads), (rows, heads))
    drawn = [torch.randn(batch, tokens, count, dim, device="cuda", dtype=torch.bfloat16) for tokens, count in sizes]
    drawn[0] *= q_scale
    return drawn


def reference(inputs: list[torch.Tensor], call: KernelCall) -> list[torch.Tensor]:
    """O, LSE, dQ, dK, dV and delta in float64."""
    q, k, v, do = (each.double() for each in inputs)
    allowed = window(call, q.shape[1], k.shape[1], "cuda")
    o, lse = dense_forward(q, k, v, allowed)
    delta = row_dot(do, o)
    return [o, lse, *dense_backward(q, k, v, do, lse, delta, allowed), delta]


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    assert torch.isfinite(got).all()
    return float((got.double() - want).norm() / want.norm())


@pytest.mark.parametrize("q_scale", [1.0, 4.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("kernel_name", KERNELS)
def test_forward_and_backward(kernel_name: str, name: str, shape: tuple[int, int, int, int], q_scale: float) -> None:
    rows, columns, left, right = WINDOWS[name]
    kernel, call = build_attention_kernel(kernel_name), KernelCall((), left, right)
    inputs = draw(rows, columns, shape, q_scale)
    q, k, v, do = inputs
    if kernel_name == "cudnn" and "window" in name:
        with pytest.raises(InputError, match="not a window"):
            kernel.forward(q, k, v, call)
        return
    want_o, want_lse, *want, want_delta = reference(inputs, call)
    o, lse = kernel.forward(q, k, v, call)
    assert error(o, want_o) < TOLERANCE["o"]
    assert (lse.double() - want_lse).abs().max() < TOLERANCE["lse"] * q_scale
    delta = want_delta.float().contiguous()
    for row, given in ((o, False), (delta, True)):
        gradients = kernel.backward(q, k, v, do, lse, row, call, delta=given)
        for got, expected, which in zip(gradients, want, ("dq", "dk", "dv"), strict=True):
            assert error(got, expected) < TOLERANCE[which], (which, given)


@pytest.mark.parametrize("kernel_name", KERNELS)
def test_steps_on_slices_with_the_final_lse(kernel_name: str) -> None:
    """A ring's backward: parts of the keys, views of whole tensors, the LSE and O of all keys."""
    inputs = draw(1024, 1024, (2, 4, 2, 128), 4.0)
    q, k, v, do = inputs
    want_o, want_lse, want_dq, want_dk, want_dv, _ = reference(inputs, KernelCall((), None, None))
    kernel, call = build_attention_kernel(kernel_name), KernelCall((), None, None)
    running = torch.zeros(want_o.shape, device="cuda")
    lse = torch.full(want_lse.shape, -torch.inf, device="cuda")
    halves = (slice(0, 512), slice(512, 1024))
    for columns in halves:
        fused.merge_into(running, lse, *kernel.forward(q, k[:, columns], v[:, columns], call))
    o = running.to(torch.bfloat16)
    assert error(o, want_o) < TOLERANCE["o"]
    dq = torch.zeros_like(running)
    for columns, rows in product(halves, halves):
        part = kernel.backward(
            q[:, rows], k[:, columns], v[:, columns], do[:, rows], lse[:, :, rows], o[:, rows], call, delta=False
        )
        dq[:, rows] += part[0]
    assert error(dq, want_dq) < TOLERANCE["dq"]
    part = kernel.backward(q, k[:, halves[1]], v[:, halves[1]], do, lse, o, call, delta=False)
    assert error(part[1], want_dk[:, halves[1]]) < TOLERANCE["dk"]
    assert error(part[2], want_dv[:, halves[1]]) < TOLERANCE["dv"]


@pytest.mark.parametrize("kernel_name", KERNELS)
def test_sixteen_thousand_tokens(kernel_name: str) -> None:
    inputs = draw(16384, 16384, (1, 1, 1, 128), 2.0)
    call = KernelCall((), None, 0)
    kernel, (want_o, _, *want, _) = build_attention_kernel(kernel_name), reference(inputs, call)
    o, lse = kernel.forward(*inputs[:3], call)
    assert error(o, want_o) < TOLERANCE["o"]
    for got, expected in zip(kernel.backward(*inputs, lse, o, call, delta=False), want, strict=True):
        assert error(got, expected) < TOLERANCE["dq"]


def test_flex() -> None:
    """Compiled once: the gradients under another LSE and delta than its own."""
    inputs = draw(1024, 1024, (1, 8, 2, 128), 2.0)
    q, k, v, do = inputs
    call = KernelCall((), None, 0)
    want_o, want_lse, *want, delta = reference(inputs, call)
    kernel = build_attention_kernel("flex")
    o, lse = kernel.forward(q, k, v, call)
    assert error(o, want_o) < TOLERANCE["o"] and (lse.double() - want_lse).abs().max() < 4e-3
    for got, expected in zip(kernel.backward(q, k, v, do, lse, o, call, delta=False), want, strict=True):
        assert error(got, expected) < TOLERANCE["dq"]
    other, changed = want_lse + 0.7, delta + 0.3
    allowed = window(call, 1024, 1024, "cuda")
    expected = dense_backward(*(each.double() for each in inputs), other, changed, allowed)
    got = kernel.backward(q, k, v, do, other.float(), changed.float(), call, delta=True)
    for each, wanted in zip(got, expected, strict=True):
        assert error(each, wanted) < TOLERANCE["dq"]


def test_triton_continues_a_running_result_and_does_segments_at_once() -> None:
    inputs = draw(1024, 1024, (1, 8, 2, 128), 4.0)
    q, k, v, _ = inputs
    want_o, want_lse, *_ = reference(inputs, KernelCall((), None, None))
    o, lse = torch.zeros(want_o.shape, device="cuda"), torch.full(want_lse.shape, -torch.inf, device="cuda")
    first = KernelCall((Segment(0, 1024, 0, 640),), None, None)
    second = KernelCall((Segment(0, 300, 640, 1024), Segment(300, 1024, 640, 1024)), None, None)
    for call in (first, second):
        TritonKernel().run_forward(q, k, v, call, o, lse, running=True)
    assert error(o, want_o) < TOLERANCE["o"] and (lse.double() - want_lse).abs().max() < 8e-3


SEGMENTS = (
    (Segment(0, 700, 0, 700), Segment(700, 1000, 700, 1000), Segment(1000, 1024, 1000, 1024)),
    (Segment(100, 400, 50, 500), Segment(700, 1000, 524, 1024)),
    (Segment(0, 300, 300, 400), Segment(512, 1024, 400, 450)),
)


@pytest.mark.parametrize("window_of", [(None, None), (None, 0), (120, 0), (90, 40)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("number", range(len(SEGMENTS)))
@pytest.mark.parametrize("kernel_name", [name for name in ("flash2", "triton") if name in KERNELS])
def test_segments_in_one_launch(
    kernel_name: str, number: int, shape: tuple[int, int, int, int], window_of: tuple[int | None, int | None]
) -> None:
    """Packed documents, with rows and columns of none between them, and with more queries than keys."""
    segments, (left, right) = SEGMENTS[number], window_of
    kernel, call = build_attention_kernel(kernel_name), KernelCall(segments, left, right)
    assert isinstance(kernel, SegmentsKernel)
    if not kernel.takes_segments(call):
        assert number == 2 and left is not None
        pytest.skip("the executor launches the segments one by one")
    inputs = draw(1024, 1024, shape, 2.0)
    q, k, v, do = inputs
    o, lse = kernel.forward_segments(q, k, v, call)
    parts = []
    for s in segments:
        rows, columns = slice(s.q_start, s.q_stop), slice(s.k_start, s.k_stop)
        want = reference([q[:, rows], k[:, columns], v[:, columns], do[:, rows]], KernelCall((), left, right))
        seen = torch.isfinite(want[1])
        assert error(torch.where(seen.transpose(1, 2)[..., None], o[:, rows], 0.0), want[0]) < TOLERANCE["o"]
        assert (lse[:, :, rows].double() - want[1])[seen].abs().max() < 2 * TOLERANCE["lse"]
        parts.append((rows, columns, want))
    delta = torch.zeros(lse.shape, device="cuda")
    for rows, _, want in parts:
        delta[:, :, rows] = want[5].float()
    for row, given in ((o, False), (delta, True)):
        gradients = kernel.backward_segments(q, k, v, do, lse, row, call, delta=given)
        for rows, columns, want in parts:
            for got, expected, where in zip(gradients, want[2:5], (rows, columns, columns), strict=True):
                assert error(got[:, where], expected) < TOLERANCE["dq"], given


def test_rows_are_moved_as_pytorch_moves_them() -> None:
    source = torch.randn(2, 1000, 16, 128, device="cuda").to(torch.bfloat16)
    wide, total = torch.empty(source.shape, device="cuda"), torch.randn(source.shape, device="cuda")
    fused.copy_into(wide, source)
    assert torch.equal(wide, source.float())
    want = total + source
    fused.add_into(total, source)
    assert torch.equal(total, want)
    packed = torch.empty(4, 2, 1000, 4, 128, device="cuda", dtype=torch.bfloat16)
    spread = source.view(2, 1000, 4, 4, 128).permute(2, 0, 1, 3, 4)
    fused.copy_into(packed, spread)
    assert torch.equal(packed, spread)

"""Products of operands in FP8, scaled per tensor, as Transformer Engine does them (current scaling, hybrid formats).

    y  = x8 w8^T                   x8, w8 in E4M3 (largest 448)
    dx = dy8 w8,  dw = dy8^T x8    dy8 in E5M2 (largest 57344)

    t8 = round(t largest / amax),    amax = max |t| of this rank's tensor: the product divides by both scales

    amax        reads t                          2 bytes an element
    quantise    reads t, writes t8 (and t8^T)    3 or 4 bytes an element

FP8 products of Hopper and Ada take both operands along the dim that is summed, so what backward needs is written
transposed besides: of x for dw, of w for dx, of dy for dw. Backward keeps the transposed x8, half of what bf16 keeps.
Weights are cast once for all microbatches of a step, and kept until the last backward has used them;
with ZeRO 3 after each gather. Inference
has them in FP8. Embedding, head, router, norms, attention and gradients of weights stay as they are. Transformer
Engine's fused modules write FP8 from norms and activations directly; here a cast is a kernel of its own, as in its
``Linear``. Source: Micikevicius et al. 2022, FP8 Formats for Deep Learning (arXiv 2209.05433), sections 3 and 4; NVIDIA
Transformer Engine, ``Float8CurrentScaling`` and ``cast_transpose``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from simulator.program.operations import Elementwise
from simulator.program.tape import Tensor
from traces.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from simulator.layers.net import Net
    from simulator.layers.parameter import Parameter

E4M3, E5M2 = "e4m3", "e5m2"
MULTIPLE = 16
"""Of rows and columns of matrices, and of tokens that are summed over: what cuBLAS's FP8 products take."""


class Cast(NamedTuple):
    """A tensor in FP8, and the same transposed where backward needs it."""

    rows: Tensor
    columns: Tensor | None


def cast(net: Net, tensor: Tensor, form: str, *, both: bool) -> Cast:
    """The tensor in FP8; a tensor of several products in a row (as of Q, K and V) is cast once."""
    key = tensor.buffer.id, form, both
    if net.last_cast is None or net.last_cast[0] != key:
        net.last_cast = key, _quantised(net, tensor, form, both=both)
    return net.last_cast[1]


def cast_weight(net: Net, weight: Parameter) -> Cast:
    """A weight in FP8, as it is stored (inference) or cast (training)."""
    if not net.training:
        return Cast(weight.held, None)
    if weight.cast is None or (net.saves and weight.cast.columns is None):
        weight.cast = _quantised(net, weight.held, E4M3, both=net.saves)
    return weight.cast


def _quantised(net: Net, tensor: Tensor, form: str, *, both: bool) -> Cast:
    r, b = net.r, tensor.buffer
    amax = r.tensor("amax", None, 1, 1, "fp32", tokens=1, batch=1)
    r.emit("amax", Elementwise("reduce", b.bytes, 4), (tensor,), (amax,))
    rows, *columns = [
        r.tensor(f"{b.name} in fp8", b.layout, b.heads, b.dim, "fp8", tokens=b.tokens, batch=b.batch)
        for _ in range(1 + both)
    ]
    written = rows.buffer.bytes * (1 + both)
    r.emit("quantise", Elementwise("copy", b.bytes, written), (tensor, amax), (rows, *columns), form=form)
    return Cast(rows, columns[0] if columns else None)


def check_matrices(weights: Iterable[Parameter]) -> None:
    """Refuse matrices that FP8 products do not take."""
    for each in weights:
        if each.fp8 and (each.rows % MULTIPLE or each.columns % MULTIPLE):
            raise InputError(f"FP8 products need rows and columns that are multiples of {MULTIPLE}",
                             got=f"{each.name}: {each.rows} x {each.columns} on a rank")  # fmt: skip

"""Projections and embedding.

    y = x w^T       forward    2 T in out FLOP
    dx = dy w       backward   the same, where anything below is trained
    dw = dy^T x     backward   the same, where w is trained; only then is x saved

T tokens of this rank. A weight that is split over tensor parallel ranks is the rank's part here. A quantised weight is
dequantised into memory of its own before each use, forward and backward (QLoRA, Dettmers et al. 2023, arXiv 2305.14314,
section 3: read bits/8 bytes, write a 16-bit element). Inference reads it as it is stored (weight-only kernels).
"""

from __future__ import annotations

from typing import Any

from cost_models.units import dtype_bytes
from simulator.layers.fp8 import E4M3, E5M2, cast, cast_weight
from simulator.layers.net import Backward, Net, Var
from simulator.layers.parameter import Parameter
from simulator.program.operations import Column, Elementwise, Gemm, IntArray
from simulator.program.tape import Tensor


def linear(net: Net, x: Var, weight: Parameter, name: str, heads: int = 1) -> Var:
    """Project: x w^T, its features as ``heads``."""
    b = x.tensor.buffer
    y = net.r.tensor(name, b.layout, heads, weight.rows // heads, b.dtype, tokens=b.tokens, batch=b.batch)
    operand, saved = forward_operands(net, x, weight)
    matrix = cast_weight(net, weight).rows if weight.fp8 else use_weight(net, weight) if net.training else weight.held
    bits = None if net.training or weight.fp8 else weight.bits
    work = Gemm(token_rows(x.tensor), ((weight.rows, weight.columns),), operand.buffer.dtype, weight_bits=bits)
    net.r.emit("linear", work, (operand, matrix), (y,))
    del matrix, operand
    out = net.var(y, x, weight)
    if out.slot and net.saves:
        net.push(_linear_backward(net, x, weight, out, saved))
    return out


def forward_operands(net: Net, x: Var, weight: Parameter) -> tuple[Tensor, Tensor | None]:
    """What a product reads, and what the weight's gradient will read; None where there is none."""
    if not weight.fp8:
        return x.tensor, x.tensor if weight.trainable else None
    found = cast(net, x.tensor, E4M3, both=net.training and net.saves and weight.trainable)
    return found.rows, found.columns


def backward_operands(net: Net, dy: Tensor, weight: Parameter) -> tuple[Tensor, Tensor]:
    """A gradient as products with the weight and with x read it."""
    if not weight.fp8:
        return dy, dy
    found = cast(net, dy, E5M2, both=weight.trainable)
    return found.rows, found.columns or found.rows


def backward_matrix(net: Net, weight: Parameter) -> Tensor:
    """The weight as the product for dx reads it."""
    if not weight.fp8:
        return use_weight(net, weight)
    columns = cast_weight(net, weight).columns
    assert columns is not None, "what is differentiated was cast both ways"
    return columns


def _linear_backward(net: Net, x: Var, weight: Parameter, out: Var, saved: Tensor | None) -> Backward:
    like, slot, out_slot = x.tensor.buffer, x.slot, out.slot
    assert out_slot is not None

    def backward() -> None:
        nonlocal saved
        dy = out_slot.take()
        by_weight, by_x = backward_operands(net, dy, weight)
        if slot is not None:
            dx = net.r.tensor(
                f"d {like.name}", like.layout, like.heads, like.dim, like.dtype, tokens=like.tokens, batch=like.batch
            )
            work = Gemm(token_rows(dy), ((weight.columns, weight.rows),), by_weight.buffer.dtype)
            net.r.emit("linear_dx", work, (by_weight, backward_matrix(net, weight)), (dx,))
            net.give(slot, dx)
        if saved is not None:
            linear_weight_grad(net, weight, by_x, saved)
            saved = None

    return backward


def linear_weight_grad(net: Net, weight: Parameter, dy: Tensor, x: Tensor, **options: Any) -> None:
    """Compute dw = dy^T x; the sum is over tokens."""
    work = Gemm(token_rows(dy), ((weight.rows, weight.columns),), x.buffer.dtype, over_rows=True)
    net.weight_grad(weight, (dy, x), "linear_dw", work, **options)


def use_weight(net: Net, weight: Parameter) -> Tensor:
    """The weight as a matrix that a kernel can read."""
    if weight.bits is None:
        return weight.held
    matrix = net.r.tensor(
        f"{weight.name} dequantised", None, 1, weight.columns, weight.dtype, tokens=weight.rows, batch=weight.planes
    )
    packed = weight.held
    net.r.emit("cast", Elementwise("copy", packed.buffer.bytes, matrix.buffer.bytes), (packed,), (matrix,))
    return matrix


def embed(net: Net, ids: Tensor, table: Parameter, hidden: int, offset: IntArray) -> Var:
    """Rows of the table, whose first is word ``offset`` of each rank; ids of words that a rank does not hold give 0."""
    b = ids.buffer
    x = net.r.tensor("x", b.layout, 1, hidden, table.dtype, tokens=b.tokens, batch=b.batch)
    net.r.emit(
        "embed", Elementwise("gather", b.bytes + x.buffer.bytes, x.buffer.bytes), (ids, table.held), (x,), offset=offset
    )
    out = net.var(x, table)
    if out.slot and net.saves:
        slot = out.slot

        def backward() -> None:
            dx = slot.take()
            rows = dx.buffer.bytes
            whole = table.size * dtype_bytes(table.grad_dtype) if table.grad is None else 0  # zero first
            work = Elementwise("gather", 2 * rows, rows + whole)
            net.weight_grad(table, (ids, dx), "embed_dw", work, offset=offset)

        net.push(backward)
    return out


def token_rows(tensor: Tensor) -> Column:
    """Rows of a matrix product: tokens times batch."""
    return tensor.buffer.tokens * tensor.buffer.batch

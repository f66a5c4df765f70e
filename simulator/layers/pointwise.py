"""Memory-bound parts: normalisation, rotary embedding, activations, residual sums.

Each is one fused kernel that reads its inputs once and writes its outputs once. Saved for backward:

    rms_norm    x, rstd (fp32, one per token)      Zhang and Sennrich 2019, arXiv 1910.07467
    rope        nothing: the inverse rotation      Su et al. 2021, arXiv 2104.09864, section 3.2
    swiglu      gate, up                           Shazeer 2020, arXiv 2002.05202
    gelu        x                                  Hendrycks and Gimpel 2016, arXiv 1606.08415
    residual    nothing
"""

from __future__ import annotations

from typing import Any

from simulator.layers.net import Backward, Net, Var
from simulator.layers.parameter import Parameter
from simulator.program.operations import Elementwise
from simulator.program.tape import Tensor


def rms_norm(net: Net, x: Var, gain: Parameter, name: str = "normed") -> Var:
    """Normalise: x / rms(x) times the gain, over the last dim."""
    r, b = net.r, x.tensor.buffer
    y, rstd = r.like(x.tensor, name), r.tensor("rstd", b.layout, b.heads, 1, "fp32", tokens=b.tokens, batch=b.batch)
    r.emit("rms_norm", Elementwise("reduce", b.bytes, b.bytes + rstd.buffer.bytes), (x.tensor, gain.held), (y, rstd))
    out = net.var(y, x, gain)
    if out.slot and net.saves:
        net.push(_rms_norm_backward(net, x, gain, out, rstd))
    return out


def _rms_norm_backward(net: Net, x: Var, gain: Parameter, out: Var, rstd: Tensor) -> Backward:
    saved, slot, out_slot = (x.tensor, rstd), x.slot, out.slot
    assert out_slot is not None

    def backward() -> None:
        dy, size = out_slot.take(), saved[0].buffer.bytes
        if slot is not None:
            dx = net.r.like(saved[0], f"d {saved[0].buffer.name}")
            net.r.emit("rms_norm_dx", Elementwise("reduce", 2 * size, size), (dy, saved[0], gain.held, saved[1]), (dx,))
            net.give(slot, dx)
        if gain.trainable:
            net.weight_grad(gain, (dy, *saved), "rms_norm_dw", Elementwise("reduce", 2 * size, 0))

    return backward


def rope(net: Net, x: Var, dims: int, positions: tuple[int, int] | None = None) -> Var:
    """Rotate the last ``dims`` features of every head, in place, by the positions of the layout or by those given."""
    b = x.tensor.buffer
    size = b.bytes * dims // b.dim
    options: dict[str, Any] = {"dims": dims, "positions": positions}
    net.r.emit("rope", Elementwise("copy", size, size), (x.tensor,), (x.tensor,), inverse=False, **options)
    out = net.var(x.tensor, x)
    if out.slot and net.saves:
        slot, out_slot = x.slot, out.slot

        def backward() -> None:
            dy = out_slot.take()
            net.r.emit("rope", Elementwise("copy", size, size), (dy,), (dy,), inverse=True, **options)
            net.give(slot, dy)

        net.push(backward)
    return out


def swiglu(net: Net, gate: Var, up: Var) -> Var:
    """silu(gate) up."""
    size, inputs = gate.tensor.buffer.bytes, (gate.tensor, up.tensor)
    h = net.r.like(gate.tensor, "h")
    net.r.emit("swiglu", Elementwise("copy", 2 * size, size), inputs, (h,))
    out = net.var(h, gate, up)
    if out.slot and net.saves:
        slots, out_slot = (gate.slot, up.slot), out.slot

        def backward() -> None:
            dh = out_slot.take()
            grads = tuple([net.r.like(each, f"d {each.buffer.name}") for each in inputs])
            net.r.emit("swiglu_backward", Elementwise("copy", 3 * size, 2 * size), (dh, *inputs), grads)
            for slot, grad in zip(slots, grads, strict=True):
                net.give(slot, grad)

        net.push(backward)
    return out


def gelu(net: Net, x: Var) -> Var:
    """Activate: x Phi(x)."""
    size, tensor = x.tensor.buffer.bytes, x.tensor
    y = net.r.like(tensor, "h")
    net.r.emit("gelu", Elementwise("copy", size, size), (tensor,), (y,))
    out = net.var(y, x)
    if out.slot and net.saves:
        slot, out_slot = x.slot, out.slot

        def backward() -> None:
            dx = net.r.like(tensor, "d x")
            net.r.emit("gelu_backward", Elementwise("copy", 2 * size, size), (out_slot.take(), tensor), (dx,))
            net.give(slot, dx)

        net.push(backward)
    return out


def residual(net: Net, a: Var, b: Var) -> Var:
    """Add: a + b."""
    size = a.tensor.buffer.bytes
    total = net.r.like(a.tensor, a.tensor.buffer.name)
    net.r.emit("add", Elementwise("accumulate", 2 * size, size), (a.tensor, b.tensor), (total,))
    out = net.var(total, a, b)
    if out.slot and net.saves:
        slots, out_slot = (a.slot, b.slot), out.slot

        def backward() -> None:
            grad = out_slot.take()
            for slot in slots:
                net.give(slot, grad, shared=slots[0] is not None and slots[1] is not None)

        net.push(backward)
    return out

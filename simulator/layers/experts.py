"""A mixture of experts in place of the feed-forward.

    router -> gates of the k experts that a token visits -> rows to the experts' ranks -> SwiGLU of each expert on its
    rows -> rows back -> sum over a token's experts of gate x row  (+ shared experts on all tokens)

Which experts a token visits is given by the routing (`simulator.layers.routing`), not by the router's values: gates are
the softmax over the given experts (Mixtral, Jiang et al. 2024, arXiv 2401.04088, section 2.1). With experts spread over
P ranks, rows travel in two all-to-alls forward and two backward, each (P-1)/P n k C e bytes where routing is even. An
expert product is one launch for all of a rank's experts, of as many rows as they get together.

New tokens, which all ranks of a context parallel group have, are dispatched to experts at the own context position only
(`routing`): where experts are spread over a context parallel group no row travels at all, and an all-reduce of n C e
bytes sums what its ranks have of each token. It is the expert parallelism of Helix (Bhatia et al. 2025, arXiv
2507.07120, section 2), whose ranks hold different keys during attention and different experts after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cost_models.models.shape import MoeShape
from cost_models.units import dtype_bytes
from simulator.grid import IntArray
from simulator.layers.fp8 import cast_weight
from simulator.layers.linear import backward_matrix, backward_operands, forward_operands, linear
from simulator.layers.net import Net, Var
from simulator.layers.parameter import Parameter
from simulator.layers.pointwise import residual, swiglu
from simulator.layers.routing import Routing
from simulator.layers.turns import Steps
from simulator.layers.weights import WeightMaker, Weights
from simulator.program.operations import Collective, Column, Elementwise, Gemm, Slices
from simulator.program.tape import Tensor


def expert_weights(maker: WeightMaker, at: str, moe: MoeShape, over: int) -> Weights:
    """Router, this rank's experts, and shared experts."""
    hidden, wide = maker.shape.hidden, moe.intermediate
    made = {
        "router": maker.whole(f"{at}router", moe.experts, hidden),
        "experts_gate": _stack(maker.rows(f"{at}experts_gate", wide, hidden), maker, moe, over),
        "experts_up": _stack(maker.rows(f"{at}experts_up", wide, hidden), maker, moe, over),
        "experts_down": _stack(maker.columns(f"{at}experts_down", hidden, wide), maker, moe, over),
    }
    if moe.shared:
        own = maker.mlp(at, moe.shared * wide)
        made |= {f"shared_{name}": each for name, each in own.items()}
        for name, each in own.items():
            each.name = f"{maker.prefix}{at}shared_{name}"
    return made


def _stack(matrix: Parameter, maker: WeightMaker, moe: MoeShape, over: int) -> Parameter:
    """The same matrix of each of this rank's experts."""
    own = moe.experts // over
    first = maker.parallel.grid.position("cp", "dp") % over * own
    inner = tuple(Slices(None if each.axis is None else each.axis + 1, each.start, each.stop) for each in matrix.slices)
    matrix.planes, matrix.experts_over, matrix.slices = own, over, (Slices(0, first, first + own), *inner)
    return matrix


@dataclass(frozen=True)
class Experts:
    """The experts of a layer, for one microbatch's routing."""

    moe: MoeShape
    routing: Routing

    def steps(self, net: Net, weights: Weights, x: Var) -> Steps:
        """The feed-forward of all tokens: this tensor parallel rank's part of it; pauses while rows travel."""
        gates = self._gates(net, linear(net, x, weights["router"], "router logits"))
        rows = yield from self._to_experts(net, self._dispatch(net, x))
        gate = self._product(net, rows, weights["experts_gate"], "gate")
        up = self._product(net, rows, weights["experts_up"], "up")
        del rows
        h = swiglu(net, gate, up)
        del gate, up
        done = yield from self._back(net, self._product(net, h, weights["experts_down"], "rows"))
        y = self._combine(net, done, gates, x)
        del done
        self._sum_shared(net, y.tensor)
        if self.moe.shared:
            shared = [linear(net, x, weights[f"shared_{name}"], name) for name in ("gate_proj", "up_proj")]
            y = residual(net, y, linear(net, swiglu(net, *shared), weights["shared_down_proj"], "x"))
        return y

    # -- on the tokens' rank -----------------------------------------------------------------------------------------

    def _options(self) -> dict[str, Any]:
        sent: dict[str, Any] = {} if self.routing.sent is None else {"sent": self.routing.sent}
        return {"counts": self.routing.counts, "place": self.routing.place, "top_k": self.moe.top_k, **sent}

    def _gates(self, net: Net, logits: Var) -> Var:
        r, tensor = net.r, logits.tensor
        gates = r.tensor("gates", None, 1, 1, "fp32", tokens=_shrink(self.routing.rows), batch=1)
        work = Elementwise("gather", tensor.buffer.bytes, gates.buffer.bytes)
        r.emit("gates", work, (tensor,), (gates,), **self._options())
        out = net.var(gates, logits)

        def backward(dgates: Tensor) -> Tensor:
            dlogits = r.like(tensor, "d router logits")
            again = Elementwise("gather", tensor.buffer.bytes + dgates.buffer.bytes, tensor.buffer.bytes)
            r.emit("gates_backward", again, (dgates, tensor), (dlogits,), **self._options())
            return dlogits

        return _hang(net, logits, out, backward)

    def _dispatch(self, net: Net, x: Var) -> Var:
        r, like = net.r, x.tensor
        rows = self._rows(net, like, self.routing.rows)
        work = Elementwise("gather", rows.buffer.bytes, rows.buffer.bytes)
        r.emit("dispatch", work, (like,), (rows,), **self._options())
        out, shape = net.var(rows, x), like.buffer
        del like

        def backward(drows: Tensor) -> Tensor:
            dx = r.tensor(
                "d x", shape.layout, shape.heads, shape.dim, shape.dtype, tokens=shape.tokens, batch=shape.batch
            )
            back = Elementwise("gather", drows.buffer.bytes, dx.buffer.bytes)
            r.emit("dispatch_backward", back, (drows,), (dx,), **self._options())
            return dx

        return _hang(net, x, out, backward)

    def _combine(self, net: Net, rows: Var, gates: Var, like: Var) -> Var:
        r, b = net.r, like.tensor.buffer
        y = r.tensor("x", b.layout, b.heads, b.dim, b.dtype, tokens=b.tokens, batch=b.batch)
        inputs = (rows.tensor, gates.tensor)
        work = Elementwise("gather", rows.tensor.buffer.bytes, y.buffer.bytes)
        r.emit("combine_rows", work, inputs, (y,), **self._options())
        out = net.var(y, rows, gates)
        if out.slot and net.saves:
            slots, out_slot = (rows.slot, gates.slot), out.slot

            def backward() -> None:
                dy, grads = out_slot.take(), tuple([r.like(each, f"d {each.buffer.name}") for each in inputs])
                size = inputs[0].buffer.bytes
                again = Elementwise("gather", 2 * size, size)
                r.emit("combine_rows_backward", again, (dy, *inputs), grads, **self._options())
                for slot, grad in zip(slots, grads, strict=True):
                    net.give(slot, grad)

            net.push(backward)
        return out

    # -- between ranks -----------------------------------------------------------------------------------------------

    def _to_experts(self, net: Net, rows: Var) -> Steps:
        """Rows sorted by expert, on the experts' ranks."""
        if not self.routing.travels:
            return rows
        arrived = self._exchange(net, rows.tensor, self.routing.splits, self.routing.computed)
        yield
        out = net.var(self._regroup(net, arrived, by_expert=True), rows)
        return _hang(net, rows, out, lambda drows: self._returned(net, drows))

    def _back(self, net: Net, rows: Var) -> Steps:
        """Rows as the tokens' ranks sent them."""
        if not self.routing.travels:
            return rows
        out = net.var(self._returned(net, rows.tensor), rows)
        yield
        return _hang(net, rows, out, lambda drows: self._gathered(net, drows))

    def _sum_shared(self, net: Net, y: Tensor) -> None:
        """Sum, in place, what the ranks that have the same tokens dispatched of them."""
        count, size = self.routing.shared, y.buffer.bytes
        if count > 1:
            assert not net.training, "tokens are replicated in inference only"
            work = Collective("all_reduce", size, 2 * size * (count - 1) // count, self.routing.sharers)
            net.r.emit("all_reduce", work, (y,), (y,), lane="comm:ep")

    def _gathered(self, net: Net, rows: Tensor) -> Tensor:
        arrived = self._exchange(net, rows, self.routing.splits, self.routing.computed)
        return self._regroup(net, arrived, by_expert=True)

    def _returned(self, net: Net, rows: Tensor) -> Tensor:
        sorted_back = self._regroup(net, rows, by_expert=False)
        return self._exchange(net, sorted_back, self.routing.returning, self.routing.rows)

    def _exchange(self, net: Net, rows: Tensor, splits: IntArray, arriving: IntArray) -> Tensor:
        arrived = self._rows(net, rows, arriving)
        row_bytes = rows.buffer.dim * dtype_bytes(rows.buffer.dtype)
        sent = (splits.sum(axis=1) - np.diagonal(splits)) * row_bytes
        work = Collective("all_to_all_v", splits.sum(axis=1) * row_bytes, sent, self.routing.groups, splits, row_bytes)
        net.r.emit("all_to_all_v", work, (rows,), (arrived,), lane="comm:ep")
        return arrived

    def _regroup(self, net: Net, rows: Tensor, *, by_expert: bool) -> Tensor:
        if self.routing.received.shape[2] == 1:
            return rows
        sorted_rows = net.r.like(rows, rows.buffer.name)
        options: dict[str, Any] = {"received": self.routing.received, "by_expert": by_expert}
        work = Elementwise("gather", rows.buffer.bytes, rows.buffer.bytes)
        net.r.emit("regroup", work, (rows,), (sorted_rows,), **options)
        return sorted_rows

    # -- on the experts' rank ----------------------------------------------------------------------------------------

    def _product(self, net: Net, x: Var, weight: Parameter, name: str) -> Var:
        r, tensor, rows = net.r, x.tensor, _shrink(self.routing.computed)
        visited = _shrink(np.count_nonzero(self.routing.received.sum(axis=1), axis=1))
        bits = None if net.training or weight.fp8 else weight.bits
        operand, saved = forward_operands(net, x, weight)
        matrix = cast_weight(net, weight).rows if weight.fp8 else weight.held
        y = r.tensor(name, None, 1, weight.rows, tensor.buffer.dtype, tokens=tensor.buffer.tokens, batch=1)
        options: dict[str, Any] = {"counts": self.routing.received.sum(axis=1)}
        shape = ((weight.rows, weight.columns),)
        product = Gemm(rows, shape, operand.buffer.dtype, weight_bits=bits, planes=visited)
        r.emit("experts", product, (operand, matrix), (y,), **options)
        del operand, matrix
        out = net.var(y, x, weight)
        if out.slot and net.saves:
            slot, out_slot, like = x.slot, out.slot, tensor.buffer
            del tensor

            def backward() -> None:
                nonlocal saved
                by_weight, by_x = backward_operands(net, out_slot.take(), weight)
                if slot is not None:
                    dx = r.tensor(f"d {like.name}", None, 1, like.dim, like.dtype, tokens=like.tokens, batch=1)
                    matrix = backward_matrix(net, weight) if weight.fp8 else weight.held
                    work = Gemm(rows, ((weight.columns, weight.rows),), by_weight.buffer.dtype, planes=visited)
                    r.emit("experts_dx", work, (by_weight, matrix), (dx,), **options)
                    net.give(slot, dx)
                if saved is not None:
                    work = Gemm(rows, shape, saved.buffer.dtype, planes=visited)
                    net.weight_grad(weight, (by_x, saved), "experts_dw", work, **options)
                    saved = None

            net.push(backward)
        return out

    def _rows(self, net: Net, like: Tensor, count: IntArray) -> Tensor:
        b = like.buffer
        return net.r.tensor("rows", None, 1, b.heads * b.dim, b.dtype, tokens=_shrink(count), batch=1)


def _shrink(column: IntArray) -> Column:
    return int(column[0]) if bool((column == column[0]).all()) else column


def _hang(net: Net, x: Var, out: Var, backward: Callable[[Tensor], Tensor]) -> Var:
    """Let the output's gradient become the input's by a function."""
    if out.slot and net.saves:
        slot, out_slot = x.slot, out.slot
        net.push(lambda: net.give(slot, backward(out_slot.take())))
    return out

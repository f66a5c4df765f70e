"""Fine-tuning methods as changes to a layer's weights and projections.

    LoRA        y = W x + B A x           A [r, in], B [out, r]: forward 2 T r (in + out) FLOP, backward twice that
    DoRA        y = s (W x + B A x)       s = m / |W + B A| by row, the norm a constant in backward (section 4.3)
    adapters    y = h + U gelu(D h + c) + b     D [m, d], U [d, m]: forward 4 T d m FLOP, two per layer
    half        some matrices are frozen: no dW of theirs

The frozen matrix still needs dX, where anything below is trained, but not its own dW. With tensor parallelism a matrix
whose rows are split has A whole and B split; one whose columns are split has A split and B whole, so that B A x is a
part of the sum that is reduced anyway. What is whole is summed over the group in backward. An adapter has D and c split
by rows and U by columns: it enters and leaves the group once more, as a sublayer does. DoRA's s = m / |W + B A| needs
nothing of other ranks where rows are split; where columns are, the squares of the norms are summed over the group (4
bytes per row and step), and s scales the parts before their own sum.
Source: Hu et al. 2021 (arXiv 2106.09685) section 4; order of operations as in Hugging Face PEFT 0.18 (lora/layer.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from cost_models.finetuning import Adapters, HalfFineTuning, Method
from cost_models.finetuning.methods import Dora, FullFineTuning, QLora
from simulator.layers.linear import linear
from simulator.layers.net import Net, Var
from simulator.layers.parameter import Parameter
from simulator.layers.pointwise import gelu, residual
from simulator.layers.tensor_parallel import TensorParallel
from simulator.layers.weights import WeightMaker, Weights
from simulator.program.operations import Elementwise, Gemm
from simulator.program.partition import Layout
from simulator.program.tape import Tensor
from traces.errors import InputError

SPLIT_COLUMNS = ("o", "down")


def adapt(method: Method, maker: WeightMaker, index: int, weights: Weights) -> Weights:
    """A layer's weights under a method: some frozen, some added."""
    if isinstance(method, HalfFineTuning):
        freeze_half(method, index, maker.shape.layers, weights)
    elif not isinstance(method, FullFineTuning) and (method.low_rank or isinstance(method, Adapters)):
        for each in weights.values():
            each.trainable = False
    if isinstance(method, QLora):
        for each in weights.values():
            each.bits = method.bits if each.rows > 1 else None
    added: Weights = {}
    if method.low_rank:
        rank, targets = method.low_rank
        for target in [each for each in targets if f"{each}_proj" in weights]:
            added |= _low_rank(maker, weights, f"{target}_proj", rank, target in SPLIT_COLUMNS)
    if isinstance(method, Dora):
        for target in [each for each in method.low_rank[1] if f"{each}_proj" in weights]:
            base, whole = weights[f"{target}_proj"], target in SPLIT_COLUMNS
            added[f"{target}_proj.length"] = maker.lengths(f"{base.name}.length", base.rows, whole=whole)
    if isinstance(method, Adapters):
        for place in ("attention", "feed_forward"):
            added |= _bottleneck(maker, f"layers.{index}.", place, method.size)
    return weights | added


def freeze_ends(method: Method, ends: Weights) -> Weights:
    """Embedding, last norm and head are trained with everything, or with half of everything."""
    if method.low_rank or isinstance(method, Adapters):
        for each in ends.values():
            each.trainable = False
    return ends


def project(
    net: Net, weights: Weights, target: str, x: Var, name: str, heads: int = 1, parallel: TensorParallel | None = None
) -> Var:  # fmt: skip
    """A projection, with what a method adds to it; ``parallel`` where its columns are split over a group."""
    y = linear(net, x, weights[target], name, heads)
    if f"{target}.lora_a" not in weights:
        return y
    low = linear(net, x, weights[f"{target}.lora_a"], "low")
    y = residual(net, y, linear(net, low, weights[f"{target}.lora_b"], name, heads))
    return y if f"{target}.length" not in weights else _scale(net, weights, target, y, parallel)


def bottleneck(net: Net, weights: Weights, place: str, x: Var, parallel: TensorParallel, home: Layout) -> Var:
    """An adapter after a sublayer, where there is one."""
    if f"{place}.down" not in weights:
        return x
    low = linear(net, parallel.enter(net, x, home), weights[f"{place}.down"], "bottleneck")
    h = gelu(net, add_bias(net, low, weights[f"{place}.down_bias"]))
    up = parallel.leave(net, linear(net, h, weights[f"{place}.up"], x.tensor.buffer.name))
    return residual(net, x, add_bias(net, up, weights[f"{place}.up_bias"]))


def add_bias(net: Net, x: Var, bias: Parameter) -> Var:
    """Add a vector to every token, in place."""
    size = x.tensor.buffer.bytes
    net.r.emit("bias", Elementwise("copy", size, size), (x.tensor, bias.held), (x.tensor,))
    out = net.var(x.tensor, x, bias)
    if out.slot and net.saves:
        slot, out_slot = x.slot, out.slot

        def backward() -> None:
            shared, dy = out_slot.shared, out_slot.take()
            if bias.trainable:
                net.weight_grad(bias, (dy,), "bias_dw", Elementwise("reduce", dy.buffer.bytes, 0))
            net.give(slot, dy, shared=shared)

        net.push(backward)
    return out


def freeze_half(method: HalfFineTuning, index: int, layers: int, weights: Weights) -> None:
    """Two of four attention matrices; of three of the feed-forward two in one half of the layers, one in the other."""
    draw = random.Random(f"{method.seed} {index}")
    attention = draw.sample(("q_proj", "k_proj", "v_proj", "o_proj"), 2)
    many = random.Random(method.seed).sample(range(layers), (layers + 1) // 2)
    forward = draw.sample(("gate_proj", "up_proj", "down_proj"), 2 if index in many else 1)
    norm = draw.sample(("input_norm", "post_norm"), 1)
    for name, each in weights.items():
        each.trainable = name in (*attention, *forward, *norm)


def _low_rank(maker: WeightMaker, weights: Weights, target: str, rank: int, split_columns: bool) -> Weights:
    base, size = weights[target], maker.parallel.size
    rows, columns = (base.rows, base.columns * size) if split_columns else (base.rows * size, base.columns)
    if split_columns:
        a, b = maker.columns(f"{base.name}.lora_a", rank, columns), maker.whole(f"{base.name}.lora_b", rows, rank)
    else:
        a, b = maker.whole(f"{base.name}.lora_a", rank, columns), maker.rows(f"{base.name}.lora_b", rows, rank)
    return {f"{target}.lora_a": a, f"{target}.lora_b": b}


def _bottleneck(maker: WeightMaker, at: str, place: str, size: int) -> Weights:
    hidden, name = maker.shape.hidden, f"{at}{place}"
    if size % maker.parallel.size:
        raise InputError("adapters' size is not divisible by the tensor parallel ranks",
                         got=f"{size} / {maker.parallel.size}")  # fmt: skip
    return {
        f"{place}.down": maker.rows(f"{name}.down", size, hidden),
        f"{place}.down_bias": maker.lengths(f"{name}.down_bias", size // maker.parallel.size, whole=False),
        f"{place}.up": maker.columns(f"{name}.up", hidden, size),
        f"{place}.up_bias": maker.gain(f"{name}.up_bias", hidden),
    }


def _scale(net: Net, weights: Weights, target: str, y: Var, parallel: TensorParallel | None) -> Var:
    """DoRA: rows of the sum get their trained lengths."""
    r, length, base = net.r, weights[f"{target}.length"], weights[target]
    a, b = weights[f"{target}.lora_a"], weights[f"{target}.lora_b"]
    product = r.tensor(f"{target} sum", None, 1, base.columns, base.dtype, tokens=base.rows, batch=1)
    r.emit("linear_dx", Gemm(base.rows, ((base.columns, a.rows),), base.dtype), (b.held, a.held), (product,))
    scale = r.tensor(f"{target} scale", None, 1, base.rows, "fp32", tokens=1, batch=1)
    read, written = base.held.buffer.bytes + product.buffer.bytes, scale.buffer.bytes
    r.emit("row_squares", Elementwise("reduce", read, written), (base.held, product), (scale,))
    del product
    if parallel is not None and parallel.size > 1:
        parallel.all_reduce(net, scale)
    r.emit("row_lengths", Elementwise("copy", 2 * written, written), (scale, length.held), (scale,))
    size = y.tensor.buffer.bytes
    scaled = r.like(y.tensor, y.tensor.buffer.name)
    r.emit("scale", Elementwise("copy", size, size), (y.tensor, scale), (scaled,))
    out = net.var(scaled, y, length)
    if out.slot and net.saves:
        net.push(_scale_backward(net, y, length, out, scale))
    return out


def _scale_backward(net: Net, y: Var, length: Parameter, out: Var, scale: Tensor) -> Callable[[], None]:
    tensor, slot, out_slot = y.tensor, y.slot, out.slot
    assert out_slot is not None

    def backward() -> None:
        dy, size = out_slot.take(), tensor.buffer.bytes
        work = Elementwise("reduce", 2 * size, 0)
        net.weight_grad(length, (dy, tensor, scale, length.held), "length_dw", work)
        dx = net.r.like(tensor, f"d {tensor.buffer.name}")
        net.r.emit("scale", Elementwise("copy", size, size), (dy, scale), (dx,))
        net.give(slot, dx)

    return backward

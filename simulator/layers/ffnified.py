"""FFNified attention on strips of an image, or of a sequence, with halo exchange.

A rank holds neighbouring rows of the image, [batch, rows x width, 1, C]. A depthwise convolution with kernel k needs
``above`` and ``below`` rows of its neighbours, each B W C e bytes; ranks at the border have zeros there. Everything
else is local. Keys and values are weights: nothing else is communicated, whatever the length.

    per block and side    (r1 + r2 + r3) W C B e bytes in three exchanges,   r = (k - 1) / 2
    backward              the same halos of dY; saved: inputs of the convolutions with their halos, and before GELU

A sequence is an image of width 1 with kernels k x 1; causal: above = k - 1, below = 0.
Source: MetaMixer (arXiv 2406.02021) section 3; halo exchange as in spatially parallel convolutions (Dryden et al. 2019,
arXiv 1903.06681, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cost_models.convolution import FfnifiedBlock
from simulator.layers.adapters import add_bias
from simulator.layers.linear import linear
from simulator.layers.net import Net, Var
from simulator.layers.parameter import Parameter
from simulator.layers.pointwise import gelu, residual
from simulator.layers.weights import Weights
from simulator.program.operations import IntArray, Stencil
from simulator.program.rings import Matching
from simulator.program.tape import Tensor
from traces.errors import InputError


@dataclass(frozen=True)
class Strips:
    """How an image lies on the ranks.

    Parameters
    ----------
    width : positions of a row.
    causal : rows see only rows before them (a sequence).
    flat : kernels are k x 1 (a sequence), not k x k.
    """

    width: int
    causal: bool = False
    flat: bool = False

    def reach(self, kernel: int) -> tuple[int, int]:
        """Rows needed above and below."""
        return (kernel - 1, 0) if self.causal else (kernel // 2, kernel // 2)

    def taps(self, kernel: int) -> int:
        """Multiply-adds per position and channel."""
        return kernel if self.flat else kernel * kernel


def block_weights(block: FfnifiedBlock, strips: Strips, name: str, dtype: str = "bf16") -> Weights:
    """Weights of a block."""
    c, e = block.channels, block.expansion
    kernels = {"keys": block.token_kernel, "values": block.token_kernel, "local": block.channel_kernel}
    made = {
        "query": Parameter(f"{name}query", c, c, dtype=dtype),
        "up": Parameter(f"{name}up", e * c, c, dtype=dtype),
        "down": Parameter(f"{name}down", c, e * c, dtype=dtype),
        "query_bias": Parameter(f"{name}query_bias", 1, c, dtype=dtype),
        "up_bias": Parameter(f"{name}up_bias", 1, e * c, dtype=dtype),
        "down_bias": Parameter(f"{name}down_bias", 1, c, dtype=dtype),
    }
    for part, kernel in kernels.items():
        made[part] = Parameter(f"{name}{part}", c, strips.taps(kernel), dtype=dtype)
        made[f"{part}_bias"] = Parameter(f"{name}{part}_bias", 1, c, dtype=dtype)
    return made


def ffnified_block(net: Net, block: FfnifiedBlock, strips: Strips, weights: Weights, x: Var) -> Var:
    """Token mixer and channel mixer."""
    x = residual(net, x, token_mixer(net, block, strips, weights, x))
    local = depthwise(net, strips, x, weights["local"], weights["local_bias"], block.channel_kernel)
    h = gelu(net, add_bias(net, linear(net, local, weights["up"], "h"), weights["up_bias"]))
    return residual(net, x, add_bias(net, linear(net, h, weights["down"], "x"), weights["down_bias"]))


def token_mixer(net: Net, block: FfnifiedBlock, strips: Strips, weights: Weights, x: Var) -> Var:
    """FFNified attention."""
    q = add_bias(net, linear(net, x, weights["query"], "q"), weights["query_bias"])
    s = depthwise(net, strips, q, weights["keys"], weights["keys_bias"], block.token_kernel)
    del q
    return depthwise(net, strips, gelu(net, s), weights["values"], weights["values_bias"], block.token_kernel)


def depthwise(net: Net, strips: Strips, x: Var, weight: Parameter, bias: Parameter, kernel: int) -> Var:
    """A depthwise convolution with bias, of this rank's rows and its neighbours' nearest."""
    above, below = strips.reach(kernel)
    return add_bias(net, _convolve(net, strips, x, weight, (above, below)), bias)


def _convolve(net: Net, strips: Strips, x: Var, weight: Parameter, reach: tuple[int, int]) -> Var:
    r, tensor = net.r, x.tensor
    halo = exchange_halo(net, strips, tensor, reach)
    y = r.like(tensor, tensor.buffer.name)
    options: dict[str, Any] = {"width": strips.width, "above": reach[0], "below": reach[1]}
    reads = (tensor, *halo, weight.held)
    r.emit("depthwise", _work(tensor, weight), reads, (y,), **options)
    out = net.var(y, x, weight)
    if out.slot and net.saves:
        slot, out_slot = x.slot, out.slot

        def backward() -> None:
            dy = out_slot.take()
            if slot is not None:
                around = exchange_halo(net, strips, dy, (reach[1], reach[0]))
                dx = r.like(tensor, f"d {tensor.buffer.name}")
                mirrored: dict[str, Any] = {"width": strips.width, "above": reach[1], "below": reach[0]}
                r.emit("depthwise_dx", _work(dy, weight), (dy, *around, weight.held), (dx,), **mirrored)
                net.give(slot, dx)
            if weight.trainable:
                net.weight_grad(weight, (dy, tensor, *halo), "depthwise_dw", _work(dy, weight), **options)

        net.push(backward)
    return out


def exchange_halo(net: Net, strips: Strips, x: Tensor, reach: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The neighbours' nearest rows, above and below; none at the border."""
    rank, width, rows = np.arange(net.r.setup.n_ranks), strips.width, x.buffer.tokens
    most = max(reach) * width
    if np.min(np.asarray(rows)) < most and len(rank) > 1:
        raise InputError("a strip is lower than the halo", got=f"{np.min(np.asarray(rows)) // width} rows",
                         expected=f"at least {max(reach)}", remedy="use fewer ranks")  # fmt: skip
    last = len(rank) - 1
    above = _from_neighbour(net, x, reach[0] * width, np.minimum(rank + 1, last), from_end=True)
    below = _from_neighbour(net, x, reach[1] * width, np.maximum(rank - 1, 0), from_end=False)
    return above, below


def _from_neighbour(net: Net, x: Tensor, count: int, to: IntArray, *, from_end: bool) -> Tensor:
    """``count`` positions that every rank sends to a neighbour, where they arrive."""
    r, b = net.r, x.buffer
    matching = Matching("halo-down" if from_end else "halo-up", to)
    has = matching.source != np.arange(len(to))
    arriving = r.tensor(f"{b.name} halo", None, b.heads, b.dim, b.dtype, tokens=np.where(has, count, 0), batch=b.batch)
    if count and has.any():
        edge = r.tensor(f"{b.name} edge", None, b.heads, b.dim, b.dtype, tokens=count, batch=b.batch)
        rows = (-count, 0) if from_end else (0, count)
        r.copy("take_tokens", (x,), edge, "copy", rows=rows)
        r.exchange(matching, (edge,), (arriving,))
    return arriving


def _work(x: Tensor, weight: Parameter) -> Stencil:
    size = x.buffer.bytes
    elements = x.buffer.tokens * (x.buffer.batch * x.buffer.dim)
    return Stencil(size, size, 2 * weight.columns * elements)

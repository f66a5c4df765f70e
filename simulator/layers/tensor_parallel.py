"""Communication of tensor parallel ranks inside a layer, version 1 and version 3.

Weights are split by columns of the first product and rows of the second (Megatron-LM, Shoeybi et al. 2019, arXiv
1909.08053, section 3). Around them, with N ranks and A = B T C e bytes of hidden states:

| | enter | leave | per rank and layer, forward and backward |
|---|---|---|---|
| version 1 | nothing; backward all-reduce | all-reduce; backward nothing | 4 all-reduces, 2 (N-1)/N A each |
| version 3 | all-gather; backward reduce-scatter | reduce-scatter; backward all-gather | 8 halves of an all-reduce |

Version 3 (sequence parallel, Korthikanti et al. 2022, arXiv 2205.05198, section 4.2) keeps norms and residuals on T/N
tokens per rank, and gathers again in backward what it does not keep: here the gathered input of a projection is saved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from simulator.grid import Grid, IntArray
from simulator.layers.net import Net, Var
from simulator.program.operations import Collective, Column
from simulator.program.partition import Layout
from simulator.program.tape import Tensor


@dataclass(frozen=True)
class TensorParallel:
    """Tensor parallel ranks of a grid.

    Parameters
    ----------
    version : 1, or 3 for sequence parallel.
    """

    grid: Grid
    version: int = 1

    @property
    def size(self) -> int:
        """Ranks of a group."""
        return self.grid.tp

    @property
    def groups(self) -> IntArray:
        """Group of each rank."""
        return self.grid.groups("tp")

    @property
    def splits_tokens(self) -> bool:
        """Whether hidden states are split over the group between products."""
        return self.version == 3 and self.size > 1

    def enter(self, net: Net, x: Var, layout: Layout | None) -> Var:
        """Hidden states as all ranks of the group need them, all tokens."""
        if self.size == 1:
            return x
        if not self.splits_tokens:
            return _pass(net, x, x.tensor, lambda dy: self.all_reduce(net, dy))
        whole = self.all_gather(net, x.tensor, layout)
        return _pass(net, x, whole, lambda dy: self.reduce_scatter(net, dy))

    def leave(self, net: Net, x: Var) -> Var:
        """Hidden states summed over the group."""
        if self.size == 1:
            return x
        if not self.splits_tokens:
            return _pass(net, x, self.all_reduce(net, x.tensor), lambda dy: dy)
        layout = x.tensor.buffer.layout
        return _pass(net, x, self.reduce_scatter(net, x.tensor), lambda dy: self.all_gather(net, dy, layout))

    def all_reduce(self, net: Net, tensor: Tensor) -> Tensor:
        """Sum over the group, in place."""
        size = tensor.buffer.bytes
        work = Collective("all_reduce", size, 2 * size * (self.size - 1) // self.size, self.groups)
        net.r.emit("all_reduce", work, (tensor,), (tensor,), lane="comm:tp")
        return tensor

    def all_gather(self, net: Net, tensor: Tensor, layout: Layout | None) -> Tensor:
        """Tokens of all ranks of the group."""
        b, size = tensor.buffer, tensor.buffer.bytes
        whole = net.r.tensor(b.name, layout, b.heads, b.dim, b.dtype, tokens=_times(b.tokens, self.size), batch=b.batch)
        work = Collective("all_gather", size, size * (self.size - 1), self.groups)
        net.r.emit("all_gather", work, (tensor,), (whole,), lane="comm:tp", axis=1)
        return whole

    def reduce_scatter(self, net: Net, tensor: Tensor) -> Tensor:
        """Sum over the group; each rank gets its tokens."""
        b, size = tensor.buffer, tensor.buffer.bytes
        part = net.r.tensor(b.name, None, b.heads, b.dim, b.dtype, tokens=b.tokens // self.size, batch=b.batch)
        work = Collective("reduce_scatter", size, size * (self.size - 1) // self.size, self.groups)
        net.r.emit("reduce_scatter", work, (tensor,), (part,), lane="comm:tp", axis=1)
        return part


def _times(tokens: Column, factor: int) -> Column:
    return tokens * factor


def _pass(net: Net, x: Var, tensor: Tensor, back: Callable[[Tensor], Tensor]) -> Var:
    """An output whose gradient is communicated by ``back``."""
    out = net.var(tensor, x)
    if out.slot and net.saves:
        slot, out_slot = x.slot, out.slot

        def backward() -> None:
            shared = out_slot.shared
            net.give(slot, back(out_slot.take()), shared=shared)

        net.push(backward)
    return out

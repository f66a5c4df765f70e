"""The attention core inside a layer: any schedule's forward and backward, and what checkpointing keeps of it.

attention   keeps what backward needs of attention: O and its LSE
sequence    keeps O and LSE of the later half of each rank's tokens; backward attends again with the earlier half,
a quarter of the causal pairs and half of the keys' traffic (BurstEngine, arXiv 2509.19836; github
thunlp/BurstEngine). Tokens are striped, so that the earlier half of every rank's rows is the earlier
half of the sequence, which sees no later keys.
"""

from __future__ import annotations

from collections.abc import Sequence

from simulator.layers.net import Net, Var
from simulator.program.operations import Elementwise
from simulator.program.partition import Layout
from simulator.program.partitioners import build_partition
from simulator.program.tape import Tensor
from simulator.schedules.base import Saved, Schedule


class Kept:
    """Attention results that a checkpointed region keeps, so that recomputing it does not attend again, or less.

    The first time, results are put in; the second time they are taken out, in the same order.

    Parameters
    ----------
    later_half : keep the later half of the tokens only.
    """

    def __init__(self, *, later_half: bool = False) -> None:
        self._results: list[Saved] = []
        self._lengths: list[int] = []
        self.recomputing, self._later_half = False, later_half

    def give_up(self) -> tuple[Tensor, ...]:
        """All results, which are kept elsewhere from now on."""
        tensors = tuple([tensor for saved in self._results for tensor in saved])
        self._lengths = [len(saved) for saved in self._results]
        self._results = []
        return tensors

    def have_back(self, tensors: Sequence[Tensor]) -> None:
        """What was given up."""
        rest = list(tensors)
        for length in self._lengths:
            self._results.append(tuple(rest[:length]))
            rest = rest[length:]

    def put(self, net: Net, saved: Saved) -> None:
        """Keep a result."""
        if self._later_half:
            half = _half(saved[0])
            saved = tuple([take_tokens(net, each, (half, 2 * half)) for each in saved])
        self._results.append(saved)

    def take(self, net: Net, schedule: Schedule, q: Tensor, k: Tensor, v: Tensor) -> Saved:
        """The next result, whole."""
        kept = self._results.pop(0)
        if not self._later_half:
            return kept
        half, setup = _half(q), net.r.setup
        layout = Layout.home(build_partition("striped", setup.workload.seq_len // 2, setup.n_ranks))
        early = [take_tokens(net, each, (0, half), layout) for each in (q, k, v)]
        again = schedule.forward(net.r, early[0], early[1], early[2])
        del early
        return tuple([_join_tokens(net, first, second, q) for first, second in zip(again, kept, strict=True)])


def attention_core(net: Net, schedule: Schedule, q: Var, k: Var, v: Var, kept: Kept | None = None) -> Var:
    """O [B, T, H, Dv] of this rank's tokens."""
    tensors = q.tensor, k.tensor, v.tensor
    if kept is not None and kept.recomputing:
        saved = kept.take(net, schedule, *tensors)
    else:
        saved = schedule.forward(net.r, *tensors)
        if kept is not None:
            kept.put(net, saved)
    out = net.var(saved[0], q, k, v)
    if out.slot and net.saves:
        slots, out_slot = (q.slot, k.slot, v.slot), out.slot

        def backward() -> None:
            gradients = schedule.backward(net.r, *tensors, saved, out_slot.take())
            for slot, gradient in zip(slots, gradients, strict=True):
                net.give(slot, gradient)

        net.push(backward)
    return out


def take_tokens(net: Net, tensor: Tensor, rows: tuple[int, int], layout: Layout | None = None) -> Tensor:
    """A copy of some of each rank's tokens."""
    b = tensor.buffer
    part = net.r.tensor(b.name, layout, b.heads, b.dim, b.dtype, tokens=rows[1] - rows[0], batch=b.batch)
    return net.r.copy("take_tokens", (tensor,), part, "copy", rows=rows)


def _join_tokens(net: Net, first: Tensor, second: Tensor, like: Tensor) -> Tensor:
    b = second.buffer
    whole = net.r.tensor(b.name, like.layout, b.heads, b.dim, b.dtype, tokens=like.buffer.tokens, batch=b.batch)
    size = whole.buffer.bytes
    net.r.emit("join_tokens", Elementwise("copy", size, size), (first, second), (whole,))
    return whole


def _half(tensor: Tensor) -> int:
    tokens = tensor.buffer.tokens
    assert isinstance(tokens, int), "ranks hold equally many tokens"
    return tokens // 2

"""The attention core inside a layer: any schedule's forward and backward, and what checkpointing keeps of it."""

from __future__ import annotations

from simulator.layers.net import Net, Var
from simulator.schedules.base import Saved, Schedule


class Kept:
    """Attention results that a checkpointed region keeps, so that recomputing it does not attend again.

    The first time, results are put in; the second time they are taken out, in the same order.
    """

    def __init__(self) -> None:
        self._results: list[Saved] = []
        self.recomputing = False

    def put(self, saved: Saved) -> None:
        """Keep a result."""
        self._results.append(saved)

    def take(self) -> Saved:
        """The next result."""
        return self._results.pop(0)


def attention_core(net: Net, schedule: Schedule, q: Var, k: Var, v: Var, kept: Kept | None = None) -> Var:
    """O [B, T, H, Dv] of this rank's tokens."""
    tensors = q.tensor, k.tensor, v.tensor
    if kept is not None and kept.recomputing:
        saved = kept.take()
    else:
        saved = schedule.forward(net.r, *tensors)
        if kept is not None:
            kept.put(saved)
    out = net.var(saved[0], q, k, v)
    if out.slot and net.saves:
        slots, out_slot = (q.slot, k.slot, v.slot), out.slot

        def backward() -> None:
            gradients = schedule.backward(net.r, *tensors, saved, out_slot.take())
            for slot, gradient in zip(slots, gradients, strict=True):
                net.give(slot, gradient)

        net.push(backward)
    return out

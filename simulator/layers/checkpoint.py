"""Activation checkpointing: a region saves its input only, and is recorded again in backward.

    full        the region's input                                       + one forward of everything in backward
    attention   and, of attention, what its backward needs (O and LSE)   + the forward of everything but attention
    sequence    and half of that (see `core`)                            + a quarter of attention's forward as well

Source: Chen et al. 2016 (arXiv 1604.06174); keeping attention results: LoongTrain (Gu et al. 2024, arXiv 2406.18485,
section 4.4) and DistFlashAttn (Li et al. 2024, arXiv 2310.03294, section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable

from simulator.layers.core import Kept
from simulator.layers.net import Net, Slot, Var

CHECKPOINTS = ("none", "full", "attention", "sequence")

Region = Callable[[Var, Kept | None], Var]


def checkpoint(net: Net, region: Region, x: Var, how: str) -> Var:
    """``region(x, kept)``, saving what ``how`` says."""
    if how == "none" or not net.training:
        return region(x, None)
    kept = None if how == "full" else Kept(later_half=how == "sequence")
    with net.without_backward():
        y = region(x, kept)
    if y.slot is not None and net.saves:
        net.push(_recompute(net, region, x, y.slot, kept))
    return y


def _recompute(net: Net, region: Region, x: Var, out_slot: Slot, kept: Kept | None) -> Callable[[], None]:
    def backward() -> None:
        if kept is not None:
            kept.recomputing = True
        again = Var(x.tensor, Slot() if x.slot is not None else None)
        mark = net.mark()
        y = region(again, kept)
        assert y.slot is not None
        y.slot.grad, y.slot.shared = out_slot.take(), False
        del y
        net.backward(mark)
        if again.slot is not None:
            net.give(x.slot, again.slot.take())

    return backward

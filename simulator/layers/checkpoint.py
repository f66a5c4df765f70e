"""Activation checkpointing: a region saves its input only, and is recorded again in backward.

    full        the region's input                                       + one forward of everything in backward
    attention   and, of attention, what its backward needs (O and LSE)   + the forward of everything but attention
    sequence    and half of that (see `core`)                            + a quarter of attention's forward as well

With a stash both the input and what is kept of attention lie in memory of the host until backward (`offload`).
Source: Chen et al. 2016 (arXiv 1604.06174); keeping attention results: LoongTrain (Gu et al. 2024, arXiv 2406.18485,
section 4.4) and DistFlashAttn (Li et al. 2024, arXiv 2310.03294, section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from simulator.layers.core import Kept
from simulator.layers.net import Net, Slot, Var
from simulator.layers.offload import Stash, Ticket
from simulator.program.tape import Tensor

CHECKPOINTS = ("none", "full", "attention", "sequence")

Region = Callable[[Var, Kept | None], Var]


def checkpoint(net: Net, region: Region, x: Var, how: str, *, stays: bool = False) -> Var:
    """``region(x, kept)``, saving what ``how`` says; what ``stays`` is not put into the net's stash."""
    if how == "none" or not net.training:
        return region(x, None)
    kept = None if how == "full" else Kept(later_half=how == "sequence")
    with net.without_backward():
        y = region(x, kept)
    if y.slot is not None and net.saves:
        net.push(_recompute(net, region, _keep(net, x.tensor, kept, stays), x.slot, y.slot, kept))
    return y


def _keep(net: Net, x: Tensor, kept: Kept | None, stays: bool) -> Callable[[], Tensor]:
    """What gives the input again, once; in between it is here, or with what is kept of attention in the stash."""
    stash = net.stash
    if stash is None:
        return lambda: x
    if stays:
        return partial(_take_here, stash, x)
    return partial(_take_back, stash, stash.put((x, *(kept.give_up() if kept is not None else ()))), kept)


def _take_here(stash: Stash, x: Tensor) -> Tensor:
    stash.ahead()
    return x


def _take_back(stash: Stash, ticket: Ticket, kept: Kept | None) -> Tensor:
    tensors = stash.take(ticket)
    if kept is not None:
        kept.have_back(tensors[1:])
    return tensors[0]


def _recompute(
    net: Net, region: Region, take: Callable[[], Tensor], slot: Slot | None, out_slot: Slot, kept: Kept | None
) -> Callable[[], None]:  # fmt: skip
    def backward() -> None:
        if kept is not None:
            kept.recomputing = True
        again = Var(take(), Slot() if slot is not None else None)
        mark = net.mark()
        y = region(again, kept)
        assert y.slot is not None
        y.slot.grad, y.slot.shared = out_slot.take(), False
        del y
        net.backward(mark)
        if again.slot is not None:
            net.give(slot, again.slot.take())

    return backward

"""What an attention kernel reaches on a GPU: tiles, their efficiency and what is lost, by direction and head dim."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from cost_models.hardware.terms import (
    ByNumber,
    Cost,
    Count,
    Counts,
    Fraction,
    Names,
    Range,
    Ratio,
    Seconds,
    Share,
    Terms,
)
from traces.errors import InputError


class KernelPass(Terms):
    """One direction of an attention kernel.

    Parameters
    ----------
    tile_rows, tile_columns : queries and keys of the tile in the inner loop.
    blocks_per_sm : thread blocks that share a multiprocessor.
    longest_first : work is handed out longest first (persistent kernels), else in order of position.
    in_order : dispatch in order of position is simulated, else taken as waves of pieces of like length.
    alone_share : part of the time for which one block keeps a multiprocessor busy (``schedule``; with ``in_order``).
    efficiency : share of the tensor cores' peak in the inner loop, by head dim.
    masked_tile_cost : time of a tile to which the mask is applied, in whole tiles.
    skipped_tile_cost : time to look at a tile that the mask leaves out, in whole tiles; 0 where the kernel knows its
        tiles beforehand.
    masks_window_tiles : a windowed call applies the mask to all its tiles, not only to those that are cut.
    window_tile_cost : then, time of a tile that is not cut, in whole tiles; None where it is that of one that is.
    prologue_s : of each piece of work: loading its own rows, writing its result, filling the pipeline.
    overhead_s : of the whole call, on the GPU.
    host_s : of the host for the whole call; None where it is that of its launches (``HostCosts.kernel_s`` each).
    varlen_s : of each piece of a call of several segments besides: finding its segment, and what pipelining between
        pieces saves in calls of one.
    checked_mask_s : of each piece besides, where the mask is applied by a variant of the kernel that checks bounds: of
        windows, and causal where there are several segments or lengths that tiles do not divide.
    boost_s : duration from which on the power limit lowers the clock.
    sustained_loss, sustained_s : share of the rate that long calls lose to it, and the duration, counted from
        ``boost_s``, at which half of it is lost.
    l2_miss_cost : time that a tile takes more when its loads come from memory, not from the L2 cache, in whole tiles.
    read_share : share of memory bandwidth at which launches of few queries read keys and values; None where it is that
        of a copy.
    fitted_rows, fitted_head_dims : queries and head dims of the measurements behind the numbers.
    """

    tile_rows: Count
    tile_columns: Count
    blocks_per_sm: Count
    longest_first: bool
    in_order: bool = False
    alone_share: Fraction = 1.0
    efficiency: ByNumber
    masked_tile_cost: Ratio = 1.0
    skipped_tile_cost: Share = 0.0
    masks_window_tiles: bool = False
    window_tile_cost: Ratio | None = None
    prologue_s: Seconds
    overhead_s: Seconds
    host_s: Seconds | None = None
    varlen_s: Seconds = 0.0
    checked_mask_s: Seconds = 0.0
    boost_s: Seconds = 0.0
    sustained_loss: Share = 0.0
    sustained_s: Seconds = 1e-3
    l2_miss_cost: Cost = 0.0
    read_share: Fraction | None = None
    fitted_rows: Range
    fitted_head_dims: Counts

    def efficiency_at(self, head_dim: float) -> float:
        """Share of peak at a head dim, linear between those listed and constant beyond."""
        dims, shares = zip(*self.efficiency, strict=True)
        return float(np.interp(head_dim, dims, shares))


class Passes(Terms):
    """Both directions of an attention kernel at one head dim."""

    forward: KernelPass
    backward: KernelPass


class AttentionCurve(Terms):
    """An attention kernel on one GPU.

    Parameters
    ----------
    max_head_dim : largest head dim it takes.
    dtypes : of Q, K and V that it takes.
    general_masks : one launch takes any mask (as blocks), not only a window around the diagonal.
    takes_delta : backward can be given delta = rowsum(dO O); else an output that has it is made for it (one more pass
        over dO).
    whole_grid : tiles lie on a grid over all rows and columns, so that one may hold the ends of two segments; else each
        segment has its own.
    varlen : one launch has several segments (packed documents); else each is a launch.
    windows : takes windows with a left bound; else full attention and causal attention of as many rows as columns, of
        which other causal calls are made (`cost_models.kernels.split_call`).
    forward, backward : the passes.
    head_dims : passes of their own of some head dims, where the kernel has other tiles for them.
    """

    max_head_dim: Count
    dtypes: Names
    general_masks: bool
    takes_delta: bool = False
    whole_grid: bool = False
    varlen: bool = True
    windows: bool = True
    forward: KernelPass
    backward: KernelPass
    head_dims: dict[str, Passes] = Field(default_factory=dict)

    def direction(self, direction: str, head_dim: int | None = None) -> KernelPass:
        """The pass by name, and that of a head dim which has its own."""
        if direction not in ("forward", "backward"):
            raise InputError("unknown direction", got=repr(direction), expected="forward or backward")
        passes: AttentionCurve | Passes = self.head_dims.get(str(head_dim), self)
        return passes.forward if direction == "forward" else passes.backward

"""Fit of one pass of an attention kernel at one head dim to its measurements.

The model is `cost_models.kernels.attention`'s; what is fitted are

| parameter | meaning |
|---|---|
| overhead_s | of the call |
| prologue_s | of each piece of work |
| tile_s | of a tile of the inner loop on one multiprocessor: gives `efficiency` |
| mask_cost | of applying the mask to a tile, in tiles: `masked_tile_cost` - 1 |
| window_cost | of the mask on a tile of a windowed call that it does not cut: `window_tile_cost` - 1 |
| varlen_s | of each piece of a call of several segments |
| checked_mask_s | of each piece of a masked call whose kernel checks bounds |
| alone_share | part of the time for which one block keeps a multiprocessor busy, where it takes several |
| miss_cost | of a tile whose loads miss the L2 cache, in tiles: `l2_miss_cost` |
| boost_s, loss | duration from which on the power limit lowers the clock, and by how much |

Tiles and blocks per multiprocessor are not fitted: they are those of the kernels that ran (`Tiling`). The makespan is
linear in the first four once it is known which pieces the slowest multiprocessor ran; so a fit alternates between
dispatching the pieces with the present values and a least-squares fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from cost_models.calibration.robust import Estimate, Parameter, fit_times
from cost_models.hardware import HardwareProfile, KernelPass
from cost_models.hardware.power import PowerTerms
from cost_models.kernels import AttentionShape, estimate_around_s, missed_share
from cost_models.kernels.pieces import checks_bounds, shared_bytes, split_visits
from cost_models.kernels.power import slowed_s
from cost_models.kernels.schedule import dispatch_in_order, rate_with
from cost_models.kernels.split_keys import SPLIT_ROWS, estimate_combine_s, split_columns, split_launch
from cost_models.kernels.tiles import Visits, tiles_per_column_tile, tiles_per_row_tile
from cost_models.masks import KernelCall

FloatArray = NDArray[np.float64]

ROUNDS = 3
SUSTAINED_S = 5e-3
"""Duration, after the boost, in which half of the loss has come: the power limit acts within milliseconds."""
FEW = 20
"""Measurements below which only overhead, prologue, tile and mask are fitted."""


@dataclass(frozen=True)
class Tiling:
    """Tiles and blocks per multiprocessor of a kernel, from its name in a profiler's trace and its source."""

    rows: int
    columns: int
    blocks_per_sm: int
    masks_window_tiles: bool = False


TILINGS = {
    ("cudnn", "forward", 64): Tiling(128, 128, 1),
    ("cudnn", "forward", 128): Tiling(128, 128, 1),
    ("cudnn", "backward", 64): Tiling(64, 128, 1),
    ("cudnn", "backward", 128): Tiling(64, 128, 1),
    ("flash2", "forward", 64): Tiling(128, 128, 2, True),  # 128 threads of up to 255 registers: two to 65,536
    ("flash2", "forward", 128): Tiling(128, 64, 2, True),
    ("flash2", "backward", 64): Tiling(128, 128, 1, True),
    ("flash2", "backward", 128): Tiling(64, 128, 1, True),
    ("triton", "forward", 64): Tiling(128, 128, 2),
    ("triton", "forward", 128): Tiling(128, 128, 1),
    ("triton", "backward", 64): Tiling(64, 128, 1),
    ("triton", "backward", 128): Tiling(64, 128, 1),
}


@dataclass(frozen=True)
class AttentionSample:
    """A measured call of a kernel, after so much work without a rest."""

    call: KernelCall
    shape: AttentionShape
    direction: str
    seconds: float
    worked_s: float = 0.0
    kernel: str = "fitted"

    @property
    def rows(self) -> int:
        """Queries of the call."""
        return sum(segment.q_stop - segment.q_start for segment in self.call.segments)

    @property
    def length(self) -> int:
        """The longer side of the call: what is left out together."""
        return max(self.rows, sum(segment.k_stop - segment.k_start for segment in self.call.segments))

    def splits(self, sm_count: int) -> int:
        """Parts into which the kernel splits the keys."""
        forward = self.direction == "forward"
        return split_launch(self.kernel, (self.call,), self.shape, sm_count) if forward else 1


@dataclass(frozen=True)
class PassFit:
    """A fitted pass, and the intervals of its parameters."""

    curve: KernelPass
    estimates: dict[str, Estimate]


def fit_pass(samples: Sequence[AttentionSample], tiling: Tiling, profile: HardwareProfile) -> PassFit:
    """Fit one pass at one head dim.

    Parameters
    ----------
    samples : of one kernel, direction and head dim.
    profile : of the GPU; its memory-bound kernels give what backward does around its main kernel.
    """
    measured = np.array([sample.seconds for sample in samples])
    around = np.array([_around_s(profile, sample) for sample in samples])
    unit_flop = np.array([s.shape.flop_per_pair(s.direction) for s in samples]) * float(tiling.rows * tiling.columns)
    values = _first_guess(samples, tiling, profile)
    estimates: dict[str, Estimate] = {}
    for _ in range(ROUNDS):
        work = _Features.of(samples, tiling, profile, values)
        free = _parameters(values, samples, tiling)

        def predict(
            x: FloatArray,
            work: _Features = work,
            free: list[Parameter] = free,
            fixed: dict[str, float] = values,
        ) -> FloatArray:
            given = fixed | {each.name: float(number) for each, number in zip(free, x, strict=True)}
            return around + work.seconds(given)

        estimates = fit_times(predict, measured, free)
        values = values | {name: estimate.value for name, estimate in estimates.items()}
    return PassFit(_curve(values, samples, tiling, float(unit_flop[0]), profile), estimates)


def _around_s(profile: HardwareProfile, sample: AttentionSample) -> float:
    """Kernels beside the main one."""
    splits = sample.splits(profile.sm_count)
    combined = estimate_combine_s(profile, sample.rows, splits, sample.shape)
    return combined + estimate_around_s(profile, (sample.call,), sample.shape, sample.direction)


def _first_guess(samples: Sequence[AttentionSample], tiling: Tiling, profile: HardwareProfile) -> dict[str, float]:
    shape, direction = samples[0].shape, samples[0].direction
    flop = tiling.rows * tiling.columns * shape.flop_per_pair(direction)
    tile_s = flop * profile.sm_count / (0.5 * profile.peak(shape.dtype))
    return {
        "overhead_s": 5e-6, "prologue_s": 2e-6, "tile_s": tile_s, "mask_cost": 0.5, "window_cost": 0.1,
        "varlen_s": 0.0, "checked_mask_s": 0.0, "alone_share": 0.7, "miss_cost": 0.0, "boost_s": 0.04, "loss": 0.08,
    }  # fmt: skip


def _parameters(values: dict[str, float], samples: Sequence[AttentionSample], tiling: Tiling) -> list[Parameter]:
    few, shared = len(samples) < FEW, tiling.blocks_per_sm > 1
    tile = values["tile_s"]
    free = [
        Parameter("overhead_s", values["overhead_s"], 0, 5e-5),
        Parameter("prologue_s", values["prologue_s"], 0, 1e-4),
        Parameter("tile_s", tile, tile / 20, tile * 20),
        Parameter("mask_cost", values["mask_cost"], 0, 5),
    ]
    if tiling.masks_window_tiles and any(sample.call.left is not None for sample in samples):
        free.append(Parameter("window_cost", values["window_cost"], 0, 5))
    if any(len(sample.call.segments) > 1 for sample in samples):
        free.append(Parameter("varlen_s", values["varlen_s"], 0, 1e-4))
    if tiling.masks_window_tiles and any(checks_bounds(s.call, tiling.rows, tiling.columns) for s in samples):
        free.append(Parameter("checked_mask_s", values["checked_mask_s"], 0, 1e-4))
    if shared:
        free.append(Parameter("alone_share", values["alone_share"], 0.2, 1))
    if not few:
        free.append(Parameter("miss_cost", max(values["miss_cost"], 0.02), 0, 1))
        free += [Parameter("boost_s", values["boost_s"], 5e-3, 0.2), Parameter("loss", values["loss"], 0, 0.5)]
    return free


@dataclass(frozen=True)
class _Features:
    """Of the slowest multiprocessor, per sample, before and in the simulated part.

    Columns: pieces, tiles, masked tiles, other tiles of a window, pieces of several segments, and that check bounds.
    """

    before: FloatArray
    simulated: FloatArray
    shares: FloatArray
    missed: FloatArray
    worked: FloatArray
    blocks_per_sm: int
    control: PowerTerms

    @staticmethod
    def of(
        samples: Sequence[AttentionSample], tiling: Tiling, profile: HardwareProfile, values: dict[str, float]
    ) -> _Features:
        """Dispatch the pieces of every sample."""
        before, simulated, shares, missed = [], [], [], []
        sm_count = profile.sm_count
        for sample in samples:
            count = tiles_per_row_tile if sample.direction == "forward" else tiles_per_column_tile
            splits, sides = sample.splits(sm_count), (tiling.rows, tiling.columns)
            if splits > 1:
                sides = SPLIT_ROWS, split_columns(sample.shape.head_dim)
            visits = count(sample.call, *sides)
            visits = split_visits(Visits(*(each[visits.tiles > 0] for each in visits)), splits)
            area = sides[0] * sides[1] / (tiling.rows * tiling.columns)
            tiles, masked = (area * each.astype(np.float64) for each in visits)
            windowed = tiles - masked if tiling.masks_window_tiles and sample.call.left is not None else 0 * tiles
            packed = np.full_like(tiles, len(sample.call.segments) > 1)
            checked = np.full_like(tiles, tiling.masks_window_tiles and checks_bounds(sample.call, *sides))
            columns = np.stack([np.ones_like(tiles), tiles, masked, windowed, packed, checked], axis=1)
            durations = columns @ _weights(values)
            dispatched = dispatch_in_order(
                durations, sample.shape.problems, sm_count, tiling.blocks_per_sm, values["alone_share"]
            )
            before.append(dispatched.skipped @ columns)
            simulated.append(dispatched.pieces @ columns)
            shares.append(dispatched.shares)
            heads = (
                sm_count * min(tiling.blocks_per_sm, -(-len(tiles) * sample.shape.problems // sm_count)) / len(tiles)
            )
            missed.append(missed_share(profile, shared_bytes(heads, (sample.call,), sample.shape, sample.direction)))
        return _Features(
            np.array(before), np.array(simulated), np.array(shares), np.array(missed),
            np.array([sample.worked_s for sample in samples]), tiling.blocks_per_sm, profile.power,
        )  # fmt: skip

    def seconds(self, values: dict[str, float]) -> FloatArray:
        """Overhead and main kernel."""
        weights = _weights(values)
        most, alone = self.blocks_per_sm, values["alone_share"]
        rates = np.array([rate_with(count, most, alone) for count in range(1, most + 1)])
        busy = self.before @ weights + (self.simulated @ weights) * (self.shares / rates).sum(axis=1)
        busy = busy * (1 + values["miss_cost"] * self.missed)
        limit = SimpleNamespace(boost_s=values["boost_s"], sustained_loss=values["loss"], sustained_s=SUSTAINED_S)
        pairs = zip(busy.tolist(), self.worked.tolist(), strict=True)
        return values["overhead_s"] + np.array([slowed_s(limit, self.control, *pair) for pair in pairs])


def _weights(values: dict[str, float]) -> FloatArray:
    """Seconds per unit of each column of `_Features`."""
    tile = values["tile_s"]
    return np.array([
        values["prologue_s"], tile, tile * values["mask_cost"], tile * values["window_cost"], values["varlen_s"],
        values["checked_mask_s"],
    ])  # fmt: skip


def _curve(
    values: dict[str, float], samples: Sequence[AttentionSample], tiling: Tiling, tile_flop: float,
    profile: HardwareProfile,
) -> KernelPass:  # fmt: skip
    shape = samples[0].shape
    dim = (shape.head_dim + shape.v_head_dim) // 2
    efficiency = tile_flop * profile.sm_count / (values["tile_s"] * profile.peak(shape.dtype))
    rows = [sample.rows for sample in samples]
    has_windows = tiling.masks_window_tiles and any(sample.call.left is not None for sample in samples)
    has_segments = any(len(sample.call.segments) > 1 for sample in samples)
    return KernelPass(
        tile_rows=tiling.rows,
        tile_columns=tiling.columns,
        blocks_per_sm=tiling.blocks_per_sm,
        longest_first=False,
        in_order=True,
        alone_share=_rounded(values["alone_share"]) if tiling.blocks_per_sm > 1 else 1.0,
        efficiency=((dim, min(1.0, _rounded(efficiency))),),
        masks_window_tiles=tiling.masks_window_tiles,
        masked_tile_cost=_rounded(1 + values["mask_cost"]),
        window_tile_cost=_rounded(1 + values["window_cost"]) if has_windows else None,
        varlen_s=_rounded(values["varlen_s"]) if has_segments else 0.0,
        checked_mask_s=_rounded(values["checked_mask_s"]),
        prologue_s=_rounded(values["prologue_s"]),
        overhead_s=_rounded(values["overhead_s"]),
        l2_miss_cost=_rounded(values["miss_cost"]),
        boost_s=_rounded(values["boost_s"]),
        sustained_loss=_rounded(values["loss"]),
        sustained_s=SUSTAINED_S,
        fitted_rows=(min(rows), max(rows)),
        fitted_head_dims=(shape.head_dim,),
    )


def _rounded(value: float) -> float:
    """Four digits, as they are written to the file."""
    return float(f"{value:.4g}")

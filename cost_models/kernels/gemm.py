"""Seconds of a dense product [m, k] x [k, n].

    t = overhead + max(slowed(waves (prologue + t_m t_n 2 k x / (efficiency peak / SMs))), bytes / HBM rate)
    waves = ceil(tiles / SMs),     x = 1 + edge_cost ((1/t_m + 1/t_n) / (1/T_m + 1/T_n) - 1)

Output tiles are equal, so whole waves are exact. Libraries have kernels for many tiles and take what is fastest: of a
tile T_m x T_n one side is kept, and the other is 64 to the longer one. Smaller tiles fill a last wave better, and load
more operands for the same work, which takes x times as long. The prologue is of each tile: its pipeline fills, and its
result is written. Where the tiles fill at most half of the multiprocessors (gradients of small matrices, and of
low-rank ones), k is split s ways, whichever is fastest, and the parts are summed in fp32:

    t_s = ceil(s tiles / SMs) (prologue + tile / s) + s 4 m n / HBM rate

Products of at most 64 rows (decoding) have lower tiles and split k over all multiprocessors, and are bound by memory. A
grouped product (experts) is p of these at once, each of m / p rows. Weights stored in fewer bits are read so and
converted in registers (weight-only kernels).
Products in FP8 take the datasheet's peak and the share of it that products in 16 bits reach: none was measured.
Source: measured on an H100 (cuBLAS 13.0, docs/validation/calibration-h100-sxm.md); the names of cuBLAS's kernels on
Hopper (nvjet_hsh_128x192_64x6) say their tiles.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from cost_models.kernels.power import slowed_s
from cost_models.units import dtype_bytes

if TYPE_CHECKING:
    from cost_models.hardware import GemmCosts, HardwareProfile


TILE_SIDES = {80: (64, 128, 256), 90: (64, 96, 128, 160, 192, 224, 256)}
"""Of the tiles that libraries have, from an architecture on: cuBLAS's CUTLASS kernels, and those of Hopper (nvjet)."""
SPLITS, LEAST_SPLIT = (2, 3, 4, 6, 8, 12, 16), 512
"""Ways of splitting k, and the least that a part has of it."""
LEAST_WRITTEN_BYTES = 2
"""Of an element of a result: products of FP8 operands write 16 bits."""
FEW_ROWS = 64
"""Rows up to which libraries split k and lower tiles."""


class Tiled(NamedTuple):
    """How long a product's tiles take, and how many there are for each multiprocessor."""

    seconds: float
    waves: float


def estimate_gemm_s(
    profile: HardwareProfile, m: int, n: int, k: int, dtype: str, weight_bits: float | None = None, planes: int = 1,
    *, worked_s: float = 0.0,
) -> float:  # fmt: skip
    """Time of a matrix product, zero where it is empty.

    Parameters
    ----------
    m, n, k : rows and columns of the result, and the dim that is summed over.
    weight_bits : of an element of the [k, n] matrix; None for those of the dtype.
    planes : matrices of a grouped product, among which the m rows are shared evenly.
    worked_s : how long the GPU has worked without a rest before: the power limit counts it (`power`).

    Raises
    ------
    InputError
        Where the GPU has no matrix units for the dtype.
    """
    costs, peak = profile.gemm, profile.peak(dtype)
    if not (m and n and k and planes):
        return 0.0
    rate = profile.hbm_bytes_per_s * profile.elementwise.efficiency["copy"]
    if -(-m // planes) <= FEW_ROWS:
        compute = 2.0 * planes * FEW_ROWS * n * k / (costs.efficiency * peak)
    else:
        compute = choose_tiles(costs, _sides(profile), profile.sm_count, peak, rate, m, n, k, planes).seconds
    element = dtype_bytes(dtype)
    weights = planes * k * n * (element if weight_bits is None else weight_bits / 8)
    written = m * n * max(element, LEAST_WRITTEN_BYTES)
    moved = m * k * element + written + weights
    return costs.overhead_s + max(slowed_s(costs, profile.power, compute, worked_s), moved / rate)


@lru_cache(maxsize=65536)
def choose_tiles(
    costs: GemmCosts, sides: tuple[int, ...], sm_count: int, peak: float, rate: float, m: int, n: int, k: int,
    planes: int = 1,
) -> Tiled:  # fmt: skip
    """The fastest tiles of a product.

    Parameters
    ----------
    sides : of the tiles that there are.
    sm_count, peak, rate : multiprocessors, FLOP/s of all, and bytes/s at which parts of a split sum are written.
    m, n, k, planes : of :func:`estimate_gemm_s`.
    """
    rows = -(-m // planes)
    tile_flop_per_s = costs.efficiency * peak / sm_count
    whole_edges = 1 / costs.tile_rows + 1 / costs.tile_columns
    best = Tiled(math.inf, 0.0)
    for tile_rows, tile_columns in _tiles(sides, costs.tile_rows, costs.tile_columns):
        tiles = planes * -(-rows // tile_rows) * -(-n // tile_columns)
        edges = 1 + costs.edge_cost * ((1 / tile_rows + 1 / tile_columns) / whole_edges - 1)
        tile_s = 2.0 * tile_rows * tile_columns * k * edges / tile_flop_per_s
        seconds = -(-tiles // sm_count) * (costs.prologue_s + tile_s)
        if 2 * tiles <= sm_count:
            sums_s = 4.0 * m * n / rate
            splits = [s for s in SPLITS if k >= s * LEAST_SPLIT]
            split_s = [-(-s * tiles // sm_count) * (costs.prologue_s + tile_s / s) + s * sums_s for s in splits]
            seconds = min([seconds, *split_s])
        best = min(best, Tiled(seconds, tiles / sm_count))
    return best


def _sides(profile: HardwareProfile) -> tuple[int, ...]:
    return TILE_SIDES[90 if profile.sm_arch >= 90 else 80]


@lru_cache
def _tiles(choice: tuple[int, ...], rows: int, columns: int) -> tuple[tuple[int, int], ...]:
    """(rows, columns) of the tiles to choose from: a side of the largest one's shorter side, and any other."""
    short, long = sorted((rows, columns))
    sides = sorted({*(side for side in choice if side <= long), long})
    return tuple({**{(short, side): None for side in sides}, **{(side, short): None for side in sides}})


def count_waves(profile: HardwareProfile, m: int, n: int, k: int, planes: int = 1) -> float:
    """Output tiles of a product, over multiprocessors."""
    if not (m and n and k and planes):
        return 0.0
    rate = profile.hbm_bytes_per_s * profile.elementwise.efficiency["copy"]
    peak, sides = profile.peak("bf16"), _sides(profile)
    return choose_tiles(profile.gemm, sides, profile.sm_count, peak, rate, m, n, k, planes).waves

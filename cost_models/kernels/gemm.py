"""Seconds of a dense product [m, k] x [k, n].

    t = overhead + max(waves t_m t_n 2 k / (efficiency peak / SMs), bytes / HBM rate),  waves = ceil(tiles / SMs)

Output tiles are equal, so whole waves are exact; split-k, which fills a last wave for few tiles, is not modelled, but
for products of at most 64 rows (decoding): those have lower tiles and split k over all multiprocessors, and are bound
by memory. A grouped product (experts) is p of these at once, each of m / p rows. Weights stored in fewer bits are read
so and converted in registers (weight-only kernels).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cost_models.units import dtype_bytes

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile


FEW_ROWS = 64
"""Rows up to which libraries split k and lower tiles."""


def estimate_gemm_s(
    profile: HardwareProfile, m: int, n: int, k: int, dtype: str, weight_bits: float | None = None, planes: int = 1
) -> float:
    """Time of a matrix product, zero where it is empty.

    Parameters
    ----------
    m, n, k : rows and columns of the result, and the dim that is summed over.
    weight_bits : of an element of the [k, n] matrix; None for those of the dtype.
    planes : matrices of a grouped product, among which the m rows are shared evenly.

    Raises
    ------
    InputError
        Where the GPU has no matrix units for the dtype.
    """
    costs, peak = profile.gemm, profile.peak(dtype)
    if not (m and n and k and planes):
        return 0.0
    rows = -(-m // planes)
    waves = math.ceil(count_waves(profile, m, n, planes))
    tile_flop = 2.0 * costs.tile_rows * costs.tile_columns * k
    compute = waves * tile_flop / (costs.efficiency * peak / profile.sm_count)
    if rows <= FEW_ROWS:
        compute = 2.0 * planes * FEW_ROWS * n * k / (costs.efficiency * peak)
    element = dtype_bytes(dtype)
    weights = planes * k * n * (element if weight_bits is None else weight_bits / 8)
    moved = (m * k + m * n) * element + weights
    floor = moved / (profile.hbm_bytes_per_s * profile.elementwise.efficiency["copy"])
    return costs.overhead_s + max(compute, floor)


def count_waves(profile: HardwareProfile, m: int, n: int, planes: int = 1) -> float:
    """Output tiles of a product, over multiprocessors."""
    costs, rows = profile.gemm, -(-m // max(planes, 1))
    return planes * -(-rows // costs.tile_rows) * -(-n // costs.tile_columns) / profile.sm_count

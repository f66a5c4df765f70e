"""Seconds of a dense product [m, k] x [k, n].

    t = overhead + max(slowed(waves t_m t_n 2 k / (s efficiency peak / SMs) + sums), bytes / HBM rate)
    waves = ceil(s tiles / SMs),    sums = 4 s m n / HBM rate where s > 1

Output tiles are equal, so whole waves are exact. Where they would leave half of the multiprocessors idle (gradients of
small matrices, and of low-rank ones), k is split s ways, whichever is fastest, and the parts are summed in fp32; the
tiles of narrow results are narrower. Products of at most 64 rows (decoding) have lower tiles and split k over all
multiprocessors, and are bound by memory. A grouped product (experts) is p of these at once, each of m / p rows. Weights
stored in fewer bits are read so and converted in registers (weight-only kernels).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cost_models.kernels.power import slowed_s
from cost_models.units import dtype_bytes

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile


NARROW_TILES = (64, 128)
"""Columns of the tiles of narrow results."""
SPLITS, LEAST_SPLIT = (2, 3, 4, 6, 8, 12, 16), 512
"""Ways of splitting k, and the least that a part has of it."""
FEW_ROWS = 64
"""Rows up to which libraries split k and lower tiles."""


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
    rows = -(-m // planes)
    rate = profile.hbm_bytes_per_s * profile.elementwise.efficiency["copy"]
    tile_s = 2.0 * costs.tile_rows * _columns(profile, n) * k / (costs.efficiency * peak / profile.sm_count)
    waves = count_waves(profile, m, n, planes)
    compute = math.ceil(waves) * tile_s
    if 2 * waves <= 1:
        sums = 4.0 * m * n / rate
        splits = [s for s in SPLITS if k >= s * LEAST_SPLIT]
        compute = min([compute, *(math.ceil(s * waves - 1e-9) * tile_s / s + s * sums for s in splits)])
    if rows <= FEW_ROWS:
        compute = 2.0 * planes * FEW_ROWS * n * k / (costs.efficiency * peak)
    element = dtype_bytes(dtype)
    weights = planes * k * n * (element if weight_bits is None else weight_bits / 8)
    moved = (m * k + m * n) * element + weights
    return costs.overhead_s + max(slowed_s(costs, compute, worked_s), moved / rate)


def count_waves(profile: HardwareProfile, m: int, n: int, planes: int = 1) -> float:
    """Output tiles of a product, over multiprocessors."""
    rows = -(-m // max(planes, 1))
    return planes * -(-rows // profile.gemm.tile_rows) * -(-n // _columns(profile, n)) / profile.sm_count


def _columns(profile: HardwareProfile, n: int) -> int:
    """Of an output tile."""
    return next((width for width in NARROW_TILES if n <= width), profile.gemm.tile_columns)

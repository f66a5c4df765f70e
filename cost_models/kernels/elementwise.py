"""Seconds of memory-bound kernels: t = overhead + bytes / (efficiency of the access pattern x memory bandwidth)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from traces.errors import InputError

if TYPE_CHECKING:
    from cost_models.hardware import HardwareProfile

Amount = int | float | NDArray[np.int64] | NDArray[np.float64]


def estimate_elementwise_s(
    profile: HardwareProfile, bytes_read: Amount, bytes_written: Amount, pattern: str
) -> float | NDArray[np.float64]:
    """Time of a kernel that reads and writes so much.

    Parameters
    ----------
    bytes_read, bytes_written : numbers or arrays; where both are zero nothing is launched.
    pattern : one of ``PATTERNS`` or ``EAGER`` of `cost_models.hardware.dense`.

    Returns
    -------
    seconds, a number or an array as the arguments are.

    Raises
    ------
    InputError
        Where the pattern is unknown.
    """
    costs = profile.elementwise
    share = costs.share(pattern)
    if share is None:
        raise InputError("unknown access pattern", got=repr(pattern), expected="one of " + ", ".join(costs.efficiency))
    rate = share * profile.hbm_bytes_per_s
    if isinstance(bytes_read, int | float) and isinstance(bytes_written, int | float):
        amount = float(bytes_read) + bytes_written
        return costs.overhead_s + amount / rate if amount > 0 else 0.0
    moved = np.asarray(bytes_read, dtype=np.float64) + bytes_written
    seconds = np.where(moved > 0, costs.overhead_s + moved / rate, 0.0)
    return float(seconds) if seconds.ndim == 0 else seconds

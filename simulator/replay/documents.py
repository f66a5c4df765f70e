"""Documents where only their number and density are published: as many, of lengths that have the density.

    length_i ~ i^-a, at most ``largest`` of the sequence,     density = sum over documents of (length / S)^2

Source: the densities are of `context-parallel` benchmarks' samples, named where they are used.
"""

from __future__ import annotations

import random
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

MOST_DOCUMENTS = 40
"""Documents beyond this number would only be short ones."""

GRAIN = 64
"""Tokens that lengths are multiples of."""


@lru_cache
def zipf_lengths(seq_len: int, count: int, density: float, largest: float) -> tuple[int, ...]:
    """Documents of a number (at most 40) and density, in a fixed random order.

    >>> lengths = zipf_lengths(65536, 39, 0.117, 0.25)
    >>> len(lengths), sum(lengths), round(sum(length**2 for length in lengths) / 65536**2, 2)
    (39, 65536, 0.12)
    """
    low, high = 0.0, 4.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (_shares(middle, count, largest) ** 2).sum() < density else (low, middle)
    lengths = np.maximum(GRAIN, np.round(_shares(low, count, largest) * seq_len / GRAIN) * GRAIN).astype(int)
    lengths[0] += seq_len - lengths.sum()
    listed = [int(length) for length in lengths]
    random.Random(0).shuffle(listed)
    return tuple(listed)


def _shares(exponent: float, count: int, largest: float) -> NDArray[np.float64]:
    """Shares of the sequence, none above the largest."""
    shares: NDArray[np.float64] = np.arange(1, min(count, MOST_DOCUMENTS) + 1, dtype=np.float64) ** -exponent
    for _ in range(50):
        shares = np.minimum(shares / shares.sum(), largest)
    return np.asarray(shares / shares.sum())

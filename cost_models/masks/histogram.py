"""Document lengths drawn from a histogram, with a seed, until they fill a sequence.

A bin [low, high) is chosen with probability proportional to its count, and a length in it uniformly. Documents are
packed in the order drawn; the last one is cut where the sequence ends. That is how LongCA-bench (arXiv 2510.17896,
data/varlen generators) packs word counts of Pile and ProLong; its distributed benchmark then replaces 60 % of the
tokens by documents of 8 to 30 thousand tokens, which a histogram can say as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traces.errors import InputError


@dataclass(frozen=True)
class Histogram:
    """Bins of document lengths: ``low <= length < high`` with ``weight``."""

    low: tuple[int, ...]
    high: tuple[int, ...]
    weight: tuple[float, ...]


def parse_histogram(text: str) -> Histogram:
    r"""Read lines ``low high count`` (or with commas); those that begin with # and a line of names are skipped.

    Raises
    ------
    InputError
        Where a line is malformed, a bin is empty or nothing has a weight.

    >>> parse_histogram("low,high,count\n1,1024,3\n1024,4096,1").weight
    (3.0, 1.0)
    """
    rows = [line.replace(",", " ").split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if rows and not rows[0][0].isdigit():
        rows = rows[1:]
    bins = [_parse_bin(row) for row in rows]
    if not bins or sum(weight for _, _, weight in bins) <= 0:
        raise InputError("histogram of document lengths is empty", expected="lines of low, high and count")
    low, high, weight = zip(*bins, strict=True)
    return Histogram(low, high, weight)


def _parse_bin(row: list[str]) -> tuple[int, int, float]:
    try:
        low, high, weight = int(row[0]), int(row[1]), float(row[2])
    except (IndexError, ValueError):
        raise InputError("histogram of document lengths is malformed", got=" ".join(row),
                         expected="low, high and count") from None  # fmt: skip
    if not 0 < low < high or not 0 <= weight < float("inf"):
        raise InputError("histogram of document lengths has no such bin", got=" ".join(row),
                         expected="0 < low < high, a count of at least 0")  # fmt: skip
    return low, high, weight


def draw_lengths(histogram: Histogram, seq_len: int, seed: int) -> tuple[int, ...]:
    """Lengths that sum to ``seq_len``.

    >>> draw_lengths(Histogram((4,), (5,), (1.0,)), 10, seed=0)
    (4, 4, 2)
    """
    rng = np.random.default_rng(seed)
    weights = np.array(histogram.weight) / sum(histogram.weight)
    low, high = np.array(histogram.low), np.array(histogram.high)
    lengths: list[int] = []
    left = seq_len
    while left > 0:
        bins = rng.choice(len(weights), 256, p=weights)
        drawn = rng.integers(low[bins], high[bins])
        room = int(np.searchsorted(np.cumsum(drawn), left))
        lengths += drawn[:room].tolist()
        left -= int(drawn[:room].sum())
        if room < len(drawn):
            lengths.append(left)
            left = 0
    return tuple(lengths)

"""Which tokens: short lists of strided ranges, the form in which a rank's shard of a sequence is described.

A contiguous shard is one range, a zigzag shard two, a striped one ``TokenRange(rank, seq_len, ranks)``. Lists of
ranges are in memory order: row i of a buffer is the i-th token of their concatenation (its *local* position).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traces.errors import InputError


@dataclass(frozen=True, slots=True)
class TokenRange:
    """Tokens ``start, start + stride, ...`` below ``stop``.

    >>> len(TokenRange(1, 12, 4)), str(TokenRange(1, 12, 4)), str(TokenRange(0, 8))
    (3, '[1, 12) by 4', '[0, 8)')
    """

    start: int
    stop: int
    stride: int = 1

    def __post_init__(self) -> None:
        if self.stride < 1 or self.start < 0:
            raise InputError("token range is malformed", got=repr(self), expected="start >= 0 and stride >= 1")

    def __len__(self) -> int:
        return max(0, -((self.start - self.stop) // self.stride))

    def __str__(self) -> str:
        return f"[{self.start}, {self.stop})" + (f" by {self.stride}" if self.stride > 1 else "")

    @property
    def last(self) -> int:
        """Last token of a range that is not empty."""
        return self.start + (len(self) - 1) * self.stride

    def tokens(self) -> NDArray[np.int64]:
        """The tokens as an array (for references and executors)."""
        return np.arange(self.start, self.stop, self.stride)


def count_tokens(ranges: Iterable[TokenRange]) -> int:
    """Number of tokens in all ranges."""
    return sum(map(len, ranges))


def gather_tokens(ranges: Iterable[TokenRange]) -> NDArray[np.int64]:
    """Token at each local position.

    >>> gather_tokens([TokenRange(4, 6), TokenRange(0, 4, 2)]).tolist()
    [4, 5, 0, 2]
    """
    return np.concatenate([np.empty(0, np.int64), *(r.tokens() for r in ranges)])


def join_ranges(ranges: Iterable[TokenRange]) -> list[TokenRange]:
    """The same tokens in the same order, in fewer ranges: empty ones left out, each joined to one it continues.

    >>> join_ranges([TokenRange(0, 4), TokenRange(4, 4), TokenRange(4, 8), TokenRange(2, 4)])
    [TokenRange(start=0, stop=8, stride=1), TokenRange(start=2, stop=4, stride=1)]
    """
    joined: list[TokenRange] = []
    for token_range in filter(len, ranges):
        before = joined[-1] if joined else None
        if before and before.stride == token_range.stride and before.last + before.stride == token_range.start:
            joined[-1] = TokenRange(before.start, token_range.stop, before.stride)
        else:
            joined.append(token_range)
    return joined

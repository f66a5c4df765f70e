"""The Pareto front: what no other is at least as good as in everything, and better in something."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def pareto_front(rows: ArrayLike) -> list[int]:
    """Indices of the rows that no other row dominates, in order of their first column; all columns are to be small.

    Of equal rows the first stands for all.

    >>> pareto_front([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0], [3.0, 3.0], [2.0, 2.0]])
    [1, 2, 0]
    """
    values = np.asarray(rows, dtype=np.float64)
    if not len(values):
        return []
    front: list[int] = []
    for index in np.lexsort(values.T[::-1]).tolist():
        if not any(np.all(values[kept] <= values[index]) for kept in front):
            front.append(index)
    return front

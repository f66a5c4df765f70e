"""How wrong the predictions are, by source and method, and whether they put methods in the right order.

The error of a row is predicted / published - 1. Rows that constants were fitted on are counted apart. Two methods of
one configuration whose published values (medians of their runs) differ by more than 10 % are a pair; it is ordered
right if the predictions differ in the same direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from simulator.replay.run import ReplayRow

DIFFERENCE = 0.10
"""Difference from which two published values are expected to be told apart."""


@dataclass(frozen=True)
class Summary:
    """Errors of one source and method, or (``method`` None) of a whole source.

    Attributes
    ----------
    rows, fitted, skipped : rows in the error; rows the fit used; rows without a prediction.
    median, p95 : of the absolute error; None where there are no rows.
    bias : median of the signed error.
    unfitted_median, unfitted_p95 : of the absolute error of the same rows with documented constants alone.
    pairs, ordered : pairs of methods that differ by more than 10 %, and those that are ordered right; of a whole source
        only.
    """

    source: str
    method: str | None
    rows: int
    fitted: int
    skipped: int
    median: float | None
    p95: float | None
    bias: float | None
    unfitted_median: float | None = None
    unfitted_p95: float | None = None
    pairs: int = 0
    ordered: int = 0

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def summarise(rows: Sequence[ReplayRow]) -> list[Summary]:
    """Errors of every source: as a whole, then by method, in the order of the rows."""
    summaries = []
    for source in dict.fromkeys(row.source for row in rows if row.source):
        own = [row for row in rows if row.source == source]
        summaries.append(_summarise(source, None, own, *order_of_pairs(own)))
        methods = dict.fromkeys(row.method for row in own)
        summaries += [_summarise(source, method, [row for row in own if row.method == method]) for method in methods]
    return summaries


def order_of_pairs(rows: Iterable[ReplayRow]) -> tuple[int, int]:
    """(pairs of methods that differ as published, those that are ordered right)."""
    groups: dict[tuple[str, ...], dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        if row.predicted is not None and row.published is not None:
            runs = groups.setdefault(row.configuration, {}).setdefault(row.method, [])
            runs.append((row.published, row.predicted))
    pairs = ordered = 0
    for methods in groups.values():
        medians = [np.median(runs, axis=0) for runs in methods.values()]
        for (one, predicted_one), (other, predicted_other) in combinations(medians, 2):
            if max(one, other) > (1 + DIFFERENCE) * min(one, other):
                pairs += 1
                ordered += bool((one - other) * (predicted_one - predicted_other) > 0)
    return pairs, ordered


def _summarise(source: str, method: str | None, rows: list[ReplayRow], pairs: int = 0, ordered: int = 0) -> Summary:
    errors = np.array([row.error for row in rows if row.error is not None and not row.in_fit])
    bare = np.array([row.unfitted for row in rows if row.unfitted is not None and not row.in_fit])
    some = len(errors) > 0
    return Summary(
        source,
        method,
        rows=len(errors),
        fitted=sum(row.in_fit for row in rows),
        skipped=sum(row.skipped is not None for row in rows),
        median=float(np.median(np.abs(errors))) if some else None,
        p95=float(np.percentile(np.abs(errors), 95)) if some else None,
        bias=float(np.median(errors)) if some else None,
        unfitted_median=float(np.median(np.abs(bare))) if len(bare) else None,
        unfitted_p95=float(np.percentile(np.abs(bare), 95)) if len(bare) else None,
        pairs=pairs,
        ordered=ordered,
    )

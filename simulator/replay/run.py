"""Replaying: every row predicted or skipped, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from simulator.progress import Progress
from simulator.replay.registry import load_sources
from simulator.replay.rows import Row, Skip, read_rows
from simulator.replay.source import Source


@dataclass(frozen=True)
class ReplayRow:
    """One published measurement and what came of it.

    Attributes
    ----------
    source, method : names; ``source`` is empty where no source knows the row.
    configuration : what rows of other methods share with it.
    unit : of both values.
    predicted, published : values; None where skipped or not a number.
    error : predicted / published - 1.
    fitted_on : rows behind the prediction's constants, in words; None where nothing was fitted.
    in_fit : this row is one of them.
    skipped : why there is no prediction, None where there is one.
    unfitted : error with documented constants alone; None where the source has no such prediction.
    """

    source: str
    method: str
    configuration: tuple[str, ...]
    unit: str
    predicted: float | None = None
    published: float | None = None
    error: float | None = None
    fitted_on: str | None = None
    in_fit: bool = False
    skipped: str | None = None
    fields: dict[str, str] = field(default_factory=dict)
    unfitted: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "configuration": list(self.configuration)}


def replay(source: str, rows: str | Path | None = None, progress: Progress | None = None) -> list[ReplayRow]:
    """Predict published measurements.

    Parameters
    ----------
    source : name, or ``all``.
    rows : CSV file with the columns of the published ones, whose rows are used instead of the committed ones; a row
        each in the result, in the file's order.
    progress : called with what is done, the number done and the total.

    Raises
    ------
    InputError
        Where there is no such source, or the file cannot be used.
    """
    sources = load_sources(source)
    work: list[tuple[Source | None, Row]]
    if rows is None:
        work = [(each, row) for each in sources for row in each.rows]
    else:
        work = [(_owner(sources, row), row) for row in read_rows(rows)]
    results = []
    for number, (owner, row) in enumerate(work):
        if progress is not None and number % 50 == 0:
            progress(f"replaying {owner.name if owner else 'rows'}", number, len(work))
        results.append(_replay_row(owner, row, sources))
    return results


def _owner(sources: Sequence[Source], row: Row) -> Source | None:
    return next((source for source in sources if source.claims(row)), None)


def _replay_row(source: Source | None, row: Row, sources: Sequence[Source]) -> ReplayRow:
    fields = dict(row.fields)
    if source is None:
        names = ", ".join(each.name for each in sources)
        return ReplayRow("", row["method"], (), row["unit"], skipped=f"not a row of {names}", fields=fields)
    published = unit = None
    method, configuration = source.method(row), source.configuration(row)
    try:
        published, unit = source.published(row)
        predicted, bare = source.predict(row), source.predict_unfitted(row)
    except Skip as reason:
        text = row["unit"] if unit is None else unit
        return ReplayRow(source.name, method, configuration, text, None, published, skipped=str(reason), fields=fields)
    return ReplayRow(
        source.name, method, configuration, unit, predicted, published, predicted / published - 1,
        source.fitted_on(row), source.in_fit(row), fields=fields,
        unfitted=None if bare is None else bare / published - 1,
    )  # fmt: skip

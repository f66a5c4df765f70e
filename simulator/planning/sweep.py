"""A sweep: every combination of given values simulated, as a table with a row each.

Columns are the options that vary, then numbers of the result; a combination that cannot run has its reason instead.
Rows are in the order of the combinations, the last option varying fastest, wherever and however fast they ran.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from simulator.planning.plan import base_point
from simulator.planning.points import Outcome
from simulator.planning.runners import Runner
from simulator.progress import Progress
from simulator.request import SimulationRequest
from traces.atomic import write_text_atomic
from traces.errors import InputError

Row = dict[str, Any]

NUMBERS = ("time_s", "forward_s", "backward_s", "other_s", "compute_s", "communication_s", "exposed_communication_s",
           "peak_memory_bytes", "fits", "exact", "bytes_sent_max", "flop_total")  # fmt: skip
MOST_POINTS = 100_000


def run_sweep(
    base: SimulationRequest,
    axes: Mapping[str, Sequence[Any]],
    runner: Runner,
    *,
    progress: Progress | None = None,
    cache_folder: str | None = None,
) -> tuple[list[Row], bool]:
    """Rows, and whether all are there (False after an interruption: those that were done).

    Parameters
    ----------
    base : options that do not vary; its engine is taken as it is, ``auto`` as max-plus.
    axes : values by option.

    Raises
    ------
    InputError
        Where there are too many combinations.
    """
    combinations = list(product(*axes.values())) if axes else []
    if not 0 < len(combinations) <= MOST_POINTS:
        raise InputError("a sweep has no usable number of combinations", got=len(combinations),
                         expected=f"1 to {MOST_POINTS}")  # fmt: skip
    fixed = base_point(base) | ({"engine": "des"} if base.engine == "des" else {})
    settings = [dict(zip(axes, values, strict=True)) for values in combinations]
    rows: dict[int, Row] = {}
    try:
        for index, outcome in runner.run([{**fixed, **each} for each in settings], None, cache_folder):
            rows[index] = {**settings[index], **_numbers(outcome)}
            if progress is not None:
                progress("points", len(rows), len(settings))
    except KeyboardInterrupt:
        pass
    return [rows[index] for index in sorted(rows)], len(rows) == len(settings)


def _numbers(outcome: Outcome) -> Row:
    return {name: outcome.get(name) for name in NUMBERS} | {"reason": outcome.get("reason")}


def check_table(path: Path | None) -> None:
    """Refuse a file that no table can be written to, before anything runs."""
    if path is not None and path.suffix not in (".csv", ".parquet"):
        raise InputError(
            "a table is of an unknown kind", got=str(path), expected="a name that ends in .csv or .parquet"
        )


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write rows as CSV, or as Parquet where the name ends so, whole or not at all.

    Raises
    ------
    InputError
        For another ending, or Parquet without pyarrow.
    """
    check_table(path)
    if path.suffix == ".parquet":
        from traces.parquet import save_rows

        save_rows(rows, path)
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text_atomic(path, text.getvalue())

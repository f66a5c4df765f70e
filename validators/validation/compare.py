"""Compares the runs of a folder with what a predictor says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from traces.errors import InputError
from traces.timeline import Timeline
from validators.validation.agreement import Agreement, compare_run
from validators.validation.forecast import Prediction
from validators.validation.report import summary_rows
from validators.validation.runs import MeasuredRun, RunFolder

if TYPE_CHECKING:
    from rich.table import Table

    from validators.validation.forecast import GpuPredictor


class Predictor(Protocol):
    """Says how long a run takes."""

    def predict(self, run: MeasuredRun) -> Prediction:
        """Its prediction."""


def compare_folder(folder: RunFolder, predictor: Predictor) -> list[Agreement]:
    """Agreement of every run that has times.

    Raises
    ------
    InputError
        Where the folder has none, and none that asked whether it fits either.
    """
    measured = [run for run in folder.runs.values() if run.outcome == "measured"]
    if not measured and any(run.outcome in ("fits", "out_of_memory") for run in folder.runs.values()):
        return []
    if not measured:
        raise InputError(f"folder {folder.path} has no measured runs", remedy="measure with --gpus, or name another")
    return [compare_run(run, predictor.predict(run), folder.timeline(run)) for run in measured]


def compare_memory(folder: RunFolder, predictor: GpuPredictor) -> list[dict[str, object]]:
    """Runs that asked whether they fit: what was predicted, what was found, and the measured peak in bytes."""
    asked = [run for run in folder.runs.values() if run.outcome == "fits" or (run.outcome == "out_of_memory")]
    return [
        {
            "schedule": run.schedule,
            "configuration": run.configuration.label,
            "predicted": "fits" if predictor.fits(run) else "out_of_memory",
            "measured": run.outcome,
            "peak_memory_bytes": run.peak_memory_bytes,
        }
        for run in asked
    ]


def worst_with_timelines(
    folder: RunFolder, predictor: Predictor, agreements: list[Agreement]
) -> tuple[Agreement, Timeline, Timeline] | None:
    """The run that is most off among those whose operations were timed, with both timelines."""
    for each in sorted(agreements, key=lambda each: -abs(each.error)):
        measured, predicted = folder.timeline(each.run), predictor.predict(each.run).timeline
        if measured is not None and predicted is not None:
            return each, predicted, measured
    return None


def table_of(agreements: list[Agreement]) -> Table:
    """A row per schedule and number of ranks."""
    from rich.table import Table

    rows = summary_rows(agreements)
    table = Table(*[str(name) for name in rows[0]])
    for row in rows:
        table.add_row(*[str(value) for value in row.values()])
    return table

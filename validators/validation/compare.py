"""Compares the runs of a folder with what a predictor says of them."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Agreement of every run that has times."""
    measured = [run for run in folder.runs.values() if run.outcome == "measured"]
    return [compare_run(run, predictor.predict(run), folder.timeline(run)) for run in measured]


def compare_folders(folders: Sequence[RunFolder], predictor: Predictor) -> list[Agreement]:
    """Agreement of every run of several folders that has times.

    Raises
    ------
    InputError
        Where there is none, and none that asked whether it fits either.
    """
    found = [each for folder in folders for each in compare_folder(folder, predictor)]
    outcomes = {run.outcome for folder in folders for run in folder.runs.values()}
    if not found and not outcomes & {"fits", "out_of_memory"}:
        where = ", ".join(str(folder.path) for folder in folders)
        raise InputError(f"folder {where} has no measured runs", remedy="measure with --gpus, or name another")
    return found


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
    folders: Sequence[RunFolder], predictor: Predictor, agreements: list[Agreement]
) -> tuple[Agreement, Timeline, Timeline] | None:
    """The run that is most off among those whose operations were timed, with both timelines."""
    for each in sorted(agreements, key=lambda each: -abs(each.error)):
        home = next((folder for folder in folders if folder.runs.get(each.run.id) is each.run), None)
        measured, predicted = home and home.timeline(each.run), predictor.predict(each.run).timeline
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

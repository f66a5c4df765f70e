"""What a source of published measurements has to say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from simulator.replay.fits import Fit, load_fit
from simulator.replay.rows import Row, read_rows

DATA = Path(__file__).with_name("data")


class Source(ABC):
    """One source of published measurements; a module in ``sources/`` derives from it.

    Attributes
    ----------
    name : on the command line; its rows are ``data/NAME.csv``, its fit, if any, ``data/NAME.fit.toml``.
    title : what it measures, in a line.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def claims(self, row: Row) -> bool:
        """Whether a row of any file is of this source."""

    @abstractmethod
    def predict(self, row: Row) -> float:
        """Predicted value in the unit of the published one.

        Raises
        ------
        Skip
            With the reason, where the row is nothing that can be predicted.
        """

    @cached_property
    def rows(self) -> list[Row]:
        """The committed rows."""
        return read_rows(DATA / f"{self.name}.csv")

    @cached_property
    def fit(self) -> Fit:
        """The committed fit; empty where the source needs none."""
        return load_fit(DATA / f"{self.name}.fit.toml")

    def published(self, row: Row) -> tuple[float, str]:
        """Published value and its unit."""
        return row.number("value"), row["unit"]

    def method(self, row: Row) -> str:
        """What is compared with what, in one configuration."""
        return row["method"]

    def configuration(self, row: Row) -> tuple[str, ...]:
        """What two rows must share for their methods to be compared."""
        columns = ("table_or_figure", "gpu", "n_gpus", "model_or_shape", "seq_len", "mask", "metric", "unit")
        return tuple(row[column] for column in columns)

    def fitted_on(self, row: Row) -> str | None:
        """Which rows the constants of this prediction were fitted on; None where there are none."""
        return self.fit.fitted_on

    def predict_unfitted(self, row: Row) -> float | None:
        """Predicted value with nobody's fit, by documented constants alone; None where the source has no such thing."""
        return None

    def in_fit(self, row: Row) -> bool:
        """Whether the constants were fitted on this very row, which is then left out of the error."""
        return False

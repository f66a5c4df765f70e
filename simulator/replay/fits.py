"""Committed fits: constants nobody published, the rows they were fitted on, and the hardware they complete.

``NAME.fit.toml`` has ``fitted_on``, a line that names the rows; ``constants``, tables of numbers; and, for sources on a
machine of their own, ``NAME.hardware.toml`` beside it is a hardware profile (`cost_models.hardware`). ``python -m
simulator.replay.refit NAME`` makes them anew; ``attnsim replay`` only reads them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cost_models.hardware import HardwareProfile, load_hardware


@dataclass(frozen=True)
class Fit:
    """Constants of one source.

    Attributes
    ----------
    fitted_on : the rows, in words; None where nothing was fitted.
    constants : by the names that the source gives them.
    """

    fitted_on: str | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)


def load_fit(path: Path) -> Fit:
    """A committed fit, empty where there is no such file."""
    if not path.is_file():
        return Fit()
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return Fit(table["fitted_on"], table.get("constants", {}))


def fitted_hardware(path: Path) -> HardwareProfile:
    """The profile that goes with a fit."""
    return load_hardware(path)

"""The schedules by name, one file per algorithm."""

from __future__ import annotations

from dataclasses import fields
from typing import get_type_hints

from cost_models.spec import Spec, parse_bool, parse_spec
from cost_models.units import parse_count
from simulator.schedules.apb import Apb
from simulator.schedules.base import Schedule
from simulator.schedules.burst import Burst
from simulator.schedules.ring import Ring
from simulator.schedules.ulysses import Ulysses
from traces.errors import InputError

SCHEDULES: dict[str, type[Schedule]] = {each.name: each for each in (Ring, Ulysses, Burst, Apb)}

__all__ = ["SCHEDULES", "Apb", "Burst", "Ring", "Schedule", "Ulysses", "parse_schedule"]


def parse_schedule(spec: str | Spec) -> Schedule:
    """A schedule from ``NAME:key=value,...``.

    Raises
    ------
    InputError
        For an unknown name or option.

    >>> parse_schedule("ring:partition=zigzag")
    Ring(partition='zigzag', grad='fp32')
    """
    spec = parse_spec(spec, "schedule") if isinstance(spec, str) else spec
    if spec.name not in SCHEDULES:
        raise InputError("unknown schedule", got=repr(spec.name), expected="one of " + ", ".join(SCHEDULES))
    kind = SCHEDULES[spec.name]
    options = tuple(field.name for field in fields(kind))
    spec.only(options)
    hints = get_type_hints(kind)
    return kind(**{key: _parse(text, hints[key], f"{spec.name}: {key}") for key, text in spec.options.items()})


def _parse(text: str, hint: object, what: str) -> object:
    if hint in (int, int | None):
        return parse_count(text, what)
    if hint in (bool, bool | None):
        return parse_bool(text, what)
    return text

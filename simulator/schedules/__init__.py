"""The schedules by name, one file per algorithm."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import get_type_hints

from cost_models.spec import Spec, parse_bool, parse_spec
from cost_models.units import parse_count
from simulator.schedules.allgather import AllGather
from simulator.schedules.apb import Apb
from simulator.schedules.base import Schedule
from simulator.schedules.burst import Burst
from simulator.schedules.flash import Flash
from simulator.schedules.hybrid_cp import HybridCp
from simulator.schedules.lightseq import LightSeq
from simulator.schedules.loongtrain import LoongTrain
from simulator.schedules.magi import Magi
from simulator.schedules.minference import MInference
from simulator.schedules.peers import PEERS
from simulator.schedules.ring import Ring
from simulator.schedules.rsa import Rsa
from simulator.schedules.star import Star
from simulator.schedules.tp import TensorParallel
from simulator.schedules.ulysses import Ulysses
from simulator.schedules.usp import Usp
from traces.errors import InputError

_ALL: tuple[type[Schedule], ...] = (
    Flash,
    Ring,
    Ulysses,
    Burst,
    AllGather,
    Usp,
    LoongTrain,
    LightSeq,
    Magi,
    HybridCp,
    TensorParallel,
    Rsa,
    Apb,
    Star,
    MInference,
)
SCHEDULES: dict[str, type[Schedule]] = {each.name: each for each in _ALL}

__all__ = [
    "PEERS",
    "SCHEDULES",
    "AllGather",
    "Apb",
    "Burst",
    "Flash",
    "HybridCp",
    "LightSeq",
    "LoongTrain",
    "MInference",
    "Magi",
    "Ring",
    "Rsa",
    "Schedule",
    "Star",
    "TensorParallel",
    "Ulysses",
    "Usp",
    "parse_schedule",
]


def parse_schedule(spec: str | Spec) -> Schedule:
    """A schedule from ``NAME:key=value,...``.

    Raises
    ------
    InputError
        For an unknown name or option.

    >>> parse_schedule("burst:ring=flat")
    Burst(ring='flat', partition=None, grad='bf16')
    """
    spec = parse_spec(spec, "schedule") if isinstance(spec, str) else spec
    known = SCHEDULES | PEERS
    if spec.name not in known:
        raise InputError("unknown schedule", got=repr(spec.name), expected="one of " + ", ".join(known))
    kind = known[spec.name]
    options = {field.name.replace("_", "-"): field.name for field in fields(kind)}
    spec.only(tuple(options))
    hints = _hints(kind)
    values = {key: _parse(text, hints[options[key]], f"{spec.name}: {key}") for key, text in spec.options.items()}
    return kind(**{options[key]: value for key, value in values.items()})


@cache
def _hints(kind: type[Schedule]) -> dict[str, object]:
    return get_type_hints(kind)


def _parse(text: str, hint: object, what: str) -> object:
    if hint in (int, int | None):
        return parse_count(text, what)
    if hint in (bool, bool | None):
        return parse_bool(text, what)
    return text

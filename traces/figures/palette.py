"""One colour and marker per schedule, in every figure that compares schedules.

The colours are those of Okabe and Ito (2008), and darker or lighter ones of the same hues once these are used up.
A schedule's variants share its colour; markers and line styles tell schedules apart where colours repeat.
"""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32

SCHEDULES = {
    "flash": "#525252",
    "ring": "#0072B2",
    "burst": "#D55E00",
    "allgather": "#56B4E9",
    "ulysses": "#009E73",
    "usp": "#E69F00",
    "loongtrain": "#CC79A7",
    "hybrid-cp": "#8C6D31",
    "lightseq": "#332288",
    "magi": "#117733",
    "tp": "#882255",
    "rsa": "#999933",
    "apb": "#AA4499",
    "star": "#44AA99",
    "minference": "#661100",
}
OTHERS = ("#6699CC", "#B15928", "#7F8B99", "#004488", "#997700")
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "star", "x")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


class Look(NamedTuple):
    """How a schedule is drawn."""

    colour: str
    symbol: str
    dash: str


def look_of(schedule: str, variant: int = 0) -> Look:
    """How a schedule is drawn; ``variant`` counts those of the same schedule in one figure.

    >>> look_of("burst:ring=double").colour == look_of("burst").colour
    True
    """
    name = schedule.partition(":")[0]
    known = list(SCHEDULES)
    number = known.index(name) if name in SCHEDULES else crc32(name.encode())
    colour = SCHEDULES.get(name) or OTHERS[number % len(OTHERS)]
    return Look(colour, SYMBOLS[(number + variant) % len(SYMBOLS)], DASHES[variant % len(DASHES)])


def looks_of(schedules: list[str]) -> dict[str, Look]:
    """How each of several schedules is drawn, variants of one told apart."""
    counts: dict[str, int] = {}
    looks: dict[str, Look] = {}
    for schedule in dict.fromkeys(schedules):
        name = schedule.partition(":")[0]
        looks[schedule] = look_of(schedule, counts.get(name, 0))
        counts[name] = counts.get(name, 0) + 1
    return looks


def short_names(schedules: list[str]) -> dict[str, str]:
    """Names for a legend: of the settings only those in which variants of a schedule differ.

    >>> short_names(["ring:grad=fp32", "tp:version=1,grad=bf16", "tp:version=3,grad=bf16"])
    {'ring:grad=fp32': 'ring', 'tp:version=1,grad=bf16': 'tp:version=1', 'tp:version=3,grad=bf16': 'tp:version=3'}
    """
    settings = {schedule: schedule.partition(":")[2].split(",") for schedule in schedules}
    shared: dict[str, set[str]] = {}
    for schedule, own in settings.items():
        name = schedule.partition(":")[0]
        shared[name] = shared.get(name, set(own)) & set(own)
    return {schedule: _short(schedule.partition(":")[0], own, shared) for schedule, own in settings.items()}


def _short(name: str, settings: list[str], shared: dict[str, set[str]]) -> str:
    kept = ",".join(each for each in settings if each not in shared[name])
    return f"{name}:{kept}" if kept else name

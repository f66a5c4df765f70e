"""Reasons against candidates, summed up: those that differ in numbers and names only are of one kind."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MOST_LISTED = 3
"""Kinds that a message lists."""


@dataclass
class Kind:
    """Reasons of one kind: the first, its candidate, and how many there are."""

    reason: str
    candidate: str
    number: int = 0


def kinds_of(dropped: Sequence[Mapping[str, str]]) -> list[Kind]:
    """Kinds, the commonest first.

    >>> [(each.reason, each.number) for each in kinds_of([
    ...     {"candidate": "ulysses tp=1", "reason": "8 heads are not divisible by 16 ranks"},
    ...     {"candidate": "ulysses tp=2", "reason": "4 heads are not divisible by 8 ranks"},
    ...     {"candidate": "apb", "reason": "it is approximate"}])]
    [('8 heads are not divisible by 16 ranks', 2), ('it is approximate', 1)]
    """
    found: dict[str, Kind] = {}
    for each in dropped:
        kind = found.setdefault(_kind(each["reason"]), Kind(each["reason"], each["candidate"]))
        kind.number += 1
    return sorted(found.values(), key=lambda kind: -kind.number)


def summarise(dropped: Sequence[Mapping[str, str]]) -> str:
    """The commonest kinds in one line: the first reason of each, without what it got where there are more."""
    kinds = kinds_of(dropped)
    listed = [
        each.reason if each.number == 1 else f"{_short(each.reason)} (and {each.number - 1} candidates alike)"
        for each in kinds[:MOST_LISTED]
    ]
    others = sum(each.number for each in kinds[MOST_LISTED:])
    return "; ".join([*listed, *([f"other reasons against {others}"] if others else [])])


def _short(reason: str) -> str:
    return re.split(r": got|;", reason, maxsplit=1)[0]


def _kind(reason: str) -> str:
    """Up to what it got, without names in it that have settings, and without numbers."""
    short = re.split(r"[:;,]", reason, maxsplit=1)[0]
    return " ".join(word for word in short.split() if not word[0].isdigit())

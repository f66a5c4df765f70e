"""Fits of the host: what issuing an operation takes, from records of the executor that issued them.

In a call on its own (`validators/bench/issued.py`):

    kinds      median of the times of a kind's later operations in a call; of attention of one launch of a kernel
    first      median of those of its first operation, less that
    first_s    median of ``first`` over kinds, which is also what a kind has that comes once in a call

Kinds that one rank alone does not have are called by themselves; their first operations are not known. ``kernel_s``
and attention's KERNEL.DIRECTION are medians of single calls from Python one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from traces.records import CalibrationRecord

ATTENTION = {"attention_forward": "forward", "attention_backward": "backward"}
COMMUNICATION = ("exchange", "collective")
Medians = dict[str, dict[str, float]]
"""Seconds by kind, or KERNEL and kind, by turn."""


@dataclass(frozen=True)
class HostTerms:
    """Terms of `HostCosts`, and `KernelPass.host_s` of attention kernels by KERNEL.DIRECTION, in seconds."""

    kernel_s: float | None = None
    kinds: dict[str, float] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    first_s: float | None = None
    attention: dict[str, float] = field(default_factory=dict)

    @property
    def terms(self) -> dict[str, float]:
        """Numbers of `HostCosts` that are known."""
        named = {"kernel_s": self.kernel_s, "first_s": self.first_s}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def tables(self) -> dict[str, dict[str, float]]:
        """Tables of `HostCosts` that are known."""
        return {name: table for name, table in (("kinds", self.kinds), ("first", self.first)) if table}


def fit_host(records: Sequence[CalibrationRecord]) -> HostTerms:
    """Terms of the host, of one machine model."""
    host = [each for each in records if each.kind == "host" and each.samples_s]
    calls = _of_calls([each for each in host if each.parameters["what"] != "issue"])
    found = _medians([each for each in host if each.parameters["what"] == "issue"])
    if not found:
        return calls
    extra = {
        name: max(0.0, turns["first"] - turns.get("later", turns.get("alone", 0.0)))
        for name, turns in found.items() if "first" in turns and len(turns) > 1
    }  # fmt: skip
    first_s = float(np.median(list(extra.values()))) if extra else 0.0
    first = _by_kind(extra)
    kinds = {_term(name): _warm(turns, first_s) for name, turns in found.items() if not _to_itself(name, turns)}
    return HostTerms(calls.kernel_s or float(np.median(list(kinds.values()))), kinds, first, first_s, calls.attention)


def _medians(records: Sequence[CalibrationRecord]) -> Medians:
    """By kind (of attention: of one launch of one segment, by kernel) and turn."""
    found: Medians = {}
    for record in records:
        p = record.parameters
        kind = str(p["operation"])
        if kind in ATTENTION:
            if p["launches"] != 1 or p["segments"] != 1 or p["delta"]:
                continue
            kind = f"{p['kernel']} {kind}"
        found.setdefault(kind, {})[str(p["turn"])] = record.median_s
    return found


def _to_itself(name: str, turns: Mapping[str, float]) -> bool:
    """Whether it is communication of a rank with itself, which is another matter."""
    return name in COMMUNICATION and set(turns) == {"alone"}


def _warm(turns: Mapping[str, float], first_s: float) -> float:
    """Of a later operation; of one that is always the first, less what the first of a kind has more."""
    if "later" in turns or "alone" in turns:
        return turns.get("later", turns.get("alone", 0.0))
    return max(turns["first"] - first_s, turns["first"] / 2)


def _term(name: str) -> str:
    """Name of a kind's term: of attention KERNEL_DIRECTION."""
    kernel, _, kind = name.rpartition(" ")
    return f"{kernel}_{ATTENTION[kind]}" if kernel else name


def _by_kind(extra: Mapping[str, float]) -> dict[str, float]:
    """Of attention the median of its kernels."""
    found: dict[str, list[float]] = {}
    for name, seconds in extra.items():
        found.setdefault(name.split()[-1], []).append(seconds)
    return {kind: float(np.median(each)) for kind, each in found.items()}


def _of_calls(records: Sequence[CalibrationRecord]) -> HostTerms:
    """From calls one after the other that are no operations."""
    single, attention = list[float](), dict[str, float]()
    for record in records:
        p = record.parameters
        if p["what"] == "attention":
            attention[f"{p['kernel']}.{p['direction']}"] = record.median_s
        elif p["what"] != "start":
            single.append(record.median_s)
    return HostTerms(float(np.median(single)) if single else None, attention=attention)

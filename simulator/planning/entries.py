"""Candidates as a plan shows them: options, measures, what limits them, and the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulator.contention import NO_INTERFERENCE
from simulator.planning.objective import Price, measures
from simulator.planning.points import Outcome
from simulator.planning.space import Candidate
from simulator.planning.standing import Standing
from simulator.schedules import parse_schedule

Entry = dict[str, Any]


def entry_of(candidate: Candidate, outcome: Outcome, price: Price | None) -> Entry:
    """Of a candidate that was simulated."""
    return {
        "candidate": str(candidate),
        "options": dict(candidate.options),
        **measures(outcome, price),
        "exact": outcome["exact"],
        "interference_neglected": NO_INTERFERENCE in outcome["warnings"],
        "limits": limits(outcome),
        "result": outcome,
    }


def estimated_entry(standing: Standing, price: Price | None) -> Entry:
    """Of a candidate that was only looked at."""
    exact = parse_schedule(str(standing.candidate.options["schedule"])).exact
    return {
        "candidate": standing.name,
        "options": dict(standing.candidate.options),
        **standing.measures(price, estimated=True),
        "exact": exact,
        "limits": [],
        "result": None,
        "estimated": True,
    }


def limits(outcome: Mapping[str, Any]) -> list[Entry]:
    """The largest parts of the critical rank's time, and how unequal the ranks' work is.

    >>> limits({"breakdown": {"compute/merge/forward": 1, "compute/attention_forward/forward": 7, "idle": 2}})
    [{'part': 'compute, attention forward', 'share': 0.7}, {'part': 'idle', 'share': 0.2}]
    """
    shares: dict[str, int] = {}
    for part, part_ns in outcome["breakdown"].items():
        name = ", ".join(part.split("/")[:2]).replace("_", " ")
        shares[name] = shares.get(name, 0) + part_ns
    total = sum(shares.values()) or 1
    ranked = sorted(shares.items(), key=lambda each: -each[1])
    return [{"part": name, "share": round(part_ns / total, 4)} for name, part_ns in ranked[:2] if part_ns]

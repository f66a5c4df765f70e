"""Plans and sweeps as HTML reports: the front, curves over what varies, and every row."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from simulator.described import describe_inputs
from simulator.evidence import load_evidence, unmeasured
from simulator.planning.plan import PlanResult
from simulator.planning.reasons import kinds_of
from simulator.planning.sweep import Row
from simulator.planning.tables import PART_NAMES
from simulator.request import SimulationRequest
from traces.figures.crossover import plot_crossover
from traces.figures.embed import Figure
from traces.figures.pareto import plot_pareto
from traces.figures.scaling import plot_scaling
from traces.report import Section, write_report

LISTED = (
    "candidate",
    "time_s",
    "low_s",
    "high_s",
    "tokens_per_s_per_gpu",
    "peak_memory_bytes",
    "usd_per_million_tokens",
    "exact",
)
CURVES = ("gpus", "seq_len")


def write_plan_report(path: str | os.PathLike[str], found: PlanResult, request: SimulationRequest) -> None:
    """Write the report of a plan, whole or not at all."""
    rows = [{name: each[name] for name in LISTED if each.get(name) is not None} for each in found.candidates]
    evidence = [[each.row for each in load_evidence()], unmeasured()]
    limits = [{"candidate": each["candidate"], **_limits(each["limits"])} for each in found.candidates]
    sections = [
        Section(f"Best by {found.objective}", [rows]),
        Section("", [_front(found, request.resolve().room_bytes)]),
        Section("Limited by", [limits]),
        *([Section("What would help the best one", [_helps(found.sensitivity)])] if found.sensitivity else []),
        *([Section("Dropped", [_by_reason(found.dropped)])] if found.dropped else []),
        Section("How wrong predictions have been", [block for block in evidence if block]),
    ]
    inputs = {**request.resolve().inputs, "nodes": request.resolve().topology.n_nodes}
    write_report(path, f"Plan for {describe_inputs(inputs)}", sections)


def write_sweep_report(
    path: str | os.PathLike[str], rows: Sequence[Row], axes: Mapping[str, Sequence[Any]], schedule: str | None
) -> None:
    """Write the report of a sweep, whole or not at all; ``schedule`` is that of rows in which it does not vary."""
    figures = [
        plot_scaling(_labelled(rows, axes, over, schedule), over) for over in CURVES if len(axes.get(over, ())) > 1
    ]
    figures += _crossover(rows, axes)
    shown = [{name: value for name, value in row.items() if value is not None} for row in rows]
    sections = [*[Section("", [figure]) for figure in figures], Section("Points", [shown])]
    write_report(path, f"{len(rows)} points over {', '.join(axes)}", sections)


def _by_reason(dropped: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Kinds of reasons, the first of each with its candidate; the JSON has all."""
    return [
        {"candidates": kind.number, "reason of the first": kind.reason, "candidate": kind.candidate}
        for kind in kinds_of(dropped)
    ]


def _helps(sensitivity: Mapping[str, float]) -> list[dict[str, Any]]:
    """What a part that is a tenth faster saves of the time: 1 - 1.1^-elasticity."""
    return [
        {"a tenth more of": PART_NAMES[part], "saves of the time": f"{1 - 1.1**-elasticity:.1%}",
         "elasticity": elasticity}
        for part, elasticity in sensitivity.items()
    ]  # fmt: skip


def _front(found: PlanResult, capacity_bytes: int) -> Figure:
    """The front of all that ran, and the best few, of which those on it are marked."""
    rows = {each["candidate"]: {**each, "schedule": each["candidate"].partition(" ")[0]} for each in found.pareto}
    front = len(rows)
    for each in found.candidates:
        rows.setdefault(each["candidate"], {**each, "schedule": each["candidate"].partition(" ")[0]})
    return plot_pareto(list(rows.values()), range(front), capacity_bytes)


def _limits(limits: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {
        name: f"{each['part']} {each['share']:.0%}" for name, each in zip(("first", "second"), limits, strict=False)
    }


def _labelled(rows: Sequence[Row], axes: Mapping[str, Sequence[Any]], over: str, schedule: str | None) -> list[Row]:
    """Rows whose schedule also says what else varies, as settings of it."""
    others = [name for name, values in axes.items() if name not in (over, "schedule") and len(values) > 1]
    labelled = []
    for row in rows:
        name = str(row.get("schedule") or schedule)
        settings = ",".join(f"{other}={row[other]}" for other in others)
        joined = f"{name}{',' if ':' in name else ':'}{settings}" if settings else name
        labelled.append({**row, "schedule": joined})
    return labelled


def _crossover(rows: Sequence[Row], axes: Mapping[str, Sequence[Any]]) -> list[Figure]:
    """The map, where lengths, schedules and the factor of one part vary, and nothing else."""
    varying = {name for name, values in axes.items() if len(values) > 1}
    parts = [str(value).partition("=") for value in axes.get("what_if", ()) if value]
    if varying != {"schedule", "seq_len", "what_if"} or len({part for part, _, _ in parts}) != 1:
        return []
    if any("," in text for _, _, text in parts):
        return []
    factored = [{**row, "factor": float(str(row["what_if"]).partition("=")[2] or 1)} for row in rows]
    return [plot_crossover(factored, parts[0][0])]

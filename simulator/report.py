"""Results as an HTML report: what came out, where the time goes, and what it was asked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from cost_models.topology import spoken_link
from simulator.described import describe_inputs
from simulator.evidence import load_evidence, terms_of, unmeasured
from simulator.link_report import DRAWN_GPUS, busiest_link, draw_loads
from simulator.result import Refused, SimulationResult
from simulator.roofline import Roofline
from simulator.tables import LISTED_LINKS, LISTED_TRANSFERS
from traces.figures.breakdown import plot_breakdown
from traces.figures.embed import Figure
from traces.figures.holders import plot_holders
from traces.figures.memory import plot_memory
from traces.figures.ranking import plot_ranking
from traces.figures.roofline import plot_roofline
from traces.figures.timeline import plot_timeline
from traces.figures.waterfall import plot_waterfall
from traces.report import Section, write_report

CONTEXT = ("inputs", "provenance", "warnings")
ROW = ("schedule", "time_s", "forward_s", "backward_s", "exposed_communication_s", "peak_memory_bytes", "fits", "exact")


def write_result_report(path: str | os.PathLike[str], result: SimulationResult) -> None:
    """Write the report of one result, whole or not at all."""
    apart = (*CONTEXT, "saturated_links")
    facts = {name: each for name, each in result.to_json().items() if name not in apart and each is not None}
    sections = [Section("Result", [facts]), *_time_figures([result], result), *_saturated(result), *_context([result])]
    write_report(path, f"{result.schedule}: {describe_inputs(result.inputs)}", sections)


def write_comparison_report(
    path: str | os.PathLike[str],
    outcomes: Sequence[SimulationResult | Refused],
    shown: SimulationResult | None = None,
) -> None:
    """Write the report of a comparison, whole or not at all; ``shown`` has the timeline in it, default the first."""
    results = [each for each in outcomes if isinstance(each, SimulationResult)]
    refused = [each.to_json() for each in outcomes if isinstance(each, Refused)]
    rows = [{name: value for name, value in each.to_json().items() if name in ROW} for each in results]
    sections = [
        Section("", [plot_ranking([each.to_json() for each in results])]),
        *_time_figures(results, shown or results[0]),
        Section("Results", [rows]),
        *([Section("Refused", [refused])] if refused else []),
        *_context(results),
    ]
    write_report(path, f"Schedules for {describe_inputs(results[0].inputs)}", sections)


def _time_figures(results: Sequence[SimulationResult], shown: SimulationResult) -> list[Section]:
    """Breakdown of all results; timeline, waterfall and memory of one."""
    parts = [{"schedule": each.schedule, "parts": each.breakdown} for each in results if each.breakdown]
    figures = [plot_breakdown(parts)] if parts else []
    figures += [plot_timeline(shown.timeline)] if shown.timeline is not None else []
    figures += [plot_waterfall(shown.breakdown)] if shown.breakdown else []
    figures += [plot_memory(shown.memory_curve)] if shown.memory_curve else []
    figures += [plot_holders([asdict(each) for each in shown.memory_holders])] if shown.memory_holders else []
    figures += [draw_roofline(shown.roofline)] if shown.roofline else []
    figures += loads_figure(shown)
    return [Section("", [figure]) for figure in figures]


def draw_roofline(roofline: Roofline) -> Figure:
    """Kernels and ceilings as a figure."""
    kernels = [asdict(each) for each in roofline.kernels]
    return plot_roofline(kernels, roofline.peak_flop_per_s, roofline.memory_bytes_per_s)


def _saturated(result: SimulationResult) -> list[Section]:
    """Links that were full, and the transfers that they slowed most."""
    rows = [
        {
            "link": spoken_link(each.link),
            "full for (s)": each.saturated_s,
            "share of time": f"{each.saturated_s / (result.time_s or 1):.1%}",
            "slowed most": ", ".join(one.transfer for one in each.slowed[:LISTED_TRANSFERS]),
        }
        for each in result.saturated_links[:LISTED_LINKS]
    ]
    return [Section("Saturated links", [rows])] if rows else []


def loads_figure(shown: SimulationResult) -> list[Figure]:
    """The first node with the load of its links, where it is small enough to be drawn."""
    topology = shown.topology
    if topology is None or not shown.link_shares or topology.ranks_per_node > DRAWN_GPUS:
        return []
    shares = np.array(shown.link_shares)
    note = (
        f"The first node: share of the time for which each direction is in full use; {busiest_link(topology, shares)}."
    )
    return [draw_loads(topology, shares, f"Load of links, {shown.schedule.partition(':')[0]}", note)]


def _context(results: Sequence[SimulationResult]) -> list[Section]:
    """What was asked, where the numbers come from, and what to beware of."""
    first = results[0]
    inputs: Mapping[str, Any] = {name: value for name, value in first.inputs.items() if value is not None}
    if len(results) > 1:
        inputs = {name: value for name, value in inputs.items() if name != "schedule"}
    warnings = list(dict.fromkeys(warning for result in results for warning in result.warnings))
    others = {name: value for name, value in first.provenance.items() if name != "terms"}
    provenance: list[Any] = [others, terms_of(first.provenance)]
    evidence = [[each.row for each in load_evidence()], unmeasured()]
    titled: dict[str, list[Any]] = {
        "Warnings": [warnings], "Inputs": [inputs], "Provenance": provenance,
        "How wrong predictions have been": evidence,
    }  # fmt: skip
    return [Section(title, [block for block in blocks if block]) for title, blocks in titled.items() if any(blocks)]

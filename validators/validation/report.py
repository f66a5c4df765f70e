"""The cross-check as tables, JSON and an HTML report: predicted against measured, what is most off, both timelines."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from traces.figures.agreement import plot_agreement
from traces.figures.colours import readable
from traces.figures.embed import Figure
from traces.figures.timeline import plot_timeline
from traces.report import Section, write_report
from traces.timeline import Timeline
from validators.validation.agreement import Agreement, KindAgreement, compare_with_peers, group, is_peer, summarise
from validators.validation.runs import MeasuredRun
from validators.validation.step_configuration import StepConfiguration

WORST = 12


def describe(
    agreements: Sequence[Agreement], runs: Sequence[MeasuredRun], memory: Sequence[Mapping[str, object]] = ()
) -> dict[str, Any]:
    """Everything as JSON holds it; ``memory`` are the runs that asked whether they fit."""
    right = sum(each["predicted"] == each["measured"] for each in memory)
    return {
        "schema_version": 1,
        "summary": summarise(agreements),
        "by_limit": {name: summarise(some) for name, some in by_limit(agreements).items()},
        "out_of_memory": {"asked": len(memory), "right": right, "runs": list(memory)},
        "by_link": {name: summarise(some) for name, some in by_link(agreements).items()},
        "against_peers": compare_with_peers(agreements),
        "by_ranks": {
            str(ranks): summarise([each for each in agreements if each.run.configuration.ranks == ranks])
            for ranks in sorted({each.run.configuration.ranks for each in agreements})
        },
        "by_schedule": {name: summarise(some) for name, some in group(agreements).items()},
        "outcomes": _outcomes(runs),
        "independent_evidence": list_evidence(runs),
        "runs": [each.to_json() for each in sorted(agreements, key=lambda each: -abs(each.error))],
    }


def by_limit(agreements: Sequence[Agreement]) -> dict[str, list[Agreement]]:
    """Runs that the device limits, and those that the host does."""
    return {
        name: [each for each in agreements if each.host_limited == host]
        for name, host in (("device", False), ("host", True))
    }  # fmt: skip


def by_link(agreements: Sequence[Agreement]) -> dict[str, list[Agreement]]:
    """By link type, whose code it is (ours, peers) and what limits it; training steps are apart."""
    found: dict[str, list[Agreement]] = {}
    for each in sorted(agreements, key=lambda each: each.link):
        whose = "peers" if is_peer(each.run) else "ours"
        steps = ", steps" if isinstance(each.run.configuration, StepConfiguration) else ""
        limit = "host" if each.host_limited else "device"
        if each.link:
            found.setdefault(f"{each.link}, {whose}{steps}, {limit}", []).append(each)
    return found


def _outcomes(runs: Sequence[MeasuredRun]) -> dict[str, int]:
    found: dict[str, int] = {}
    for run in runs:
        found[run.outcome] = found.get(run.outcome, 0) + 1
    return found


INDEPENDENT = {
    "ring": "ring-flash-attn",
    "ulysses": "yunchang",
    "usp": "yunchang",
    "allgather": "torch-cp",
}
"""Schedules that peers' own code was written for."""


def list_evidence(runs: Sequence[MeasuredRun]) -> dict[str, str]:
    """Which of our schedules has independent evidence among these runs, and which only our own."""
    measured = {run.schedule.split(":")[0] for run in runs if run.outcome == "measured"}
    peers = set(INDEPENDENT.values())
    evidence = {}
    for name in sorted(measured - peers):
        peer = INDEPENDENT.get(name)
        evidence[name] = f"independent: {peer} was measured too" if peer in measured else "ours only"
    return evidence


def summary_rows(agreements: Sequence[Agreement]) -> list[dict[str, object]]:
    """A row per schedule and number of ranks, and one of all."""
    rows = []
    limits = {f"all that the {name} limits": some for name, some in by_limit(agreements).items() if some}
    for name, some in {
        **group(agreements),
        **by_link(agreements),
        **(limits if len(limits) > 1 else {}),
        "all": list(agreements),
    }.items():
        figures: Any = summarise(some)
        exposed = figures["exposed_communication_error"]
        rows.append(
            {
                "schedule": name,
                "runs": figures["runs"],
                "median error": _percent(figures["error"]["median"]),
                "median |error|": _percent(figures["error"]["median_size"]),
                "p95 |error|": _percent(figures["error"]["p95_size"]),
                "measured spread": _percent(figures["measured_spread"]["median_size"]),
                "exposed communication": _percent(exposed["median_size"]) if exposed else "",
                "in interval": _percent(figures["in_90_percent_interval"]),
            }
        )
    return rows


def write_html(
    path: str | os.PathLike[str],
    title: str,
    agreements: Sequence[Agreement],
    runs: Sequence[MeasuredRun],
    timelines: tuple[Agreement, Timeline, Timeline] | None,
) -> None:
    """Write the report, whole or not at all.

    Parameters
    ----------
    timelines : a run with its predicted and its measured timeline, to be shown one above the other.
    """
    worst = sorted(agreements, key=lambda each: -abs(each.error))[:WORST]
    failed = [run for run in runs if run.outcome != "measured"]
    sections = [
        Section("Agreement", [_facts(summarise(agreements))]),
        Section("", [plot_agreement([_point(each) for each in agreements])]),
        Section("By schedule", [summary_rows(agreements)]),
        Section("Worst runs", [[_row(each) for each in worst]]),
        Section("Operations of the worst runs", [_kind_rows(worst)]),
    ]
    if timelines is not None:
        chosen, predicted, measured = timelines
        where = f"{chosen.run.schedule} on {chosen.run.configuration.label}"
        span_ns = max(predicted.makespan_ns, measured.makespan_ns)
        shown = {"Predicted": predicted, "Measured": measured}
        figures = [_titled(name, plot_timeline(each, span_ns=span_ns)) for name, each in shown.items()]
        sections.append(Section(f"The run that is most off: {where}", figures))
    if failed:
        sections.append(Section("Not timed", [[_failure(run) for run in failed]]))
    sections.append(Section("Independent evidence", [list_evidence(runs)]))
    if runs:
        sections.append(Section("Machine", [dict(runs[-1].machine)]))
    write_report(path, title, sections)


def _titled(title: str, figure: Figure) -> Figure:
    figure.update_layout(title_text=f"<b>{title}</b>")
    return figure


def _facts(figures: Mapping[str, Any]) -> dict[str, object]:
    """A summary in per cent; what was not asked is left out."""
    errors = {
        name: each for name, each in figures.items() if isinstance(each, Mapping) and "median_size" in each
    }  # fmt: skip
    facts: dict[str, object] = {"runs": figures["runs"], "configurations": figures["configurations"]}
    for name, each in errors.items():
        text = f"median {_percent(each['median_size'])}, 95th percentile {_percent(each['p95_size'])}"
        facts[name] = f"{text}, signed median {_percent(each['median'])}" if name.endswith("error") else text
    if figures["ordered_right"] is not None:
        facts["pairs ordered right"] = f"{figures['ordered_right']:.0%} of {figures['ordered_pairs']}"
    chance = f"{figures['probability_of_so_few']:.2g}"
    facts["within the 90 % interval"] = f"{figures['in_90_percent_interval']:.0%}; so few or fewer by chance: {chance}"
    return facts


def _point(each: Agreement) -> dict[str, object]:
    run = each.run
    return {"schedule": run.schedule.split(":")[0], "label": f"{run.schedule}, {run.configuration.label}",
            "measured_s": run.time_s, "predicted_s": each.predicted_s}  # fmt: skip


def _row(each: Agreement) -> dict[str, object]:
    return {
        "schedule": each.run.schedule,
        "configuration": each.run.configuration.label,
        "measured_s": each.run.time_s,
        "predicted_s": each.predicted_s,
        "error": _percent(each.error),
        "spread": _percent(each.run.spread),
        "most off": _most_off(each.kinds),
    }


def _kind_rows(worst: Sequence[Agreement]) -> list[dict[str, object]]:
    return [
        {"schedule": each.run.schedule.split(":")[0], "operations": kind.operations, "kind": readable(kind.kind),
         "phase": kind.phase, "predicted_s": kind.predicted_s, "measured_s": kind.measured_s}
        for each in worst
        for kind in each.kinds[:3]
    ]  # fmt: skip


def _most_off(kinds: Sequence[KindAgreement]) -> str:
    return f"{_named(kinds[0])}: {kinds[0].difference_s * 1e3:+.3g} ms" if kinds else ""


def _named(kind: KindAgreement) -> str:
    return readable(kind.kind) + ("" if kind.phase in kind.kind else f", {kind.phase}")


def _failure(run: MeasuredRun) -> dict[str, object]:
    return {"schedule": run.schedule, "configuration": run.configuration.label, "outcome": run.outcome,
            "detail": run.detail or ""}  # fmt: skip


def _percent(value: float) -> str:
    return f"{value:+.1%}" if value < 0 else f"{value:.1%}"

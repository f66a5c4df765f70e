"""An answer as the page shows it: figures by view, and tables."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from simulator.dashboard.answers import Answer
from simulator.dashboard.state import PARTS, SUBJECTS, State
from simulator.described import describe_inputs
from simulator.report import draw_roofline, loads_figure
from simulator.result import Refused, SimulationResult
from traces.display import format_bytes, format_ns
from traces.figures.breakdown import plot_breakdown
from traces.figures.embed import Figure
from traces.figures.holders import plot_holders
from traces.figures.memory import plot_memory
from traces.figures.palette import short_names
from traces.figures.pareto import plot_pareto
from traces.figures.ranking import plot_ranking
from traces.figures.style import plot_nothing
from traces.figures.timeline import plot_timeline
from traces.figures.waterfall import plot_waterfall
from traces.metrics import critical_rank

VIEWS = {
    "ranking": "Ranking and timeline",
    "time": "Where time goes",
    "sure": "How sure",
    "links": "Links",
    "trade": "Trade-offs",
    "compare": "Side by side",
    "measured": "Measured",
    "export": "Take away",
}
"""Views of the page, and what they are called."""
MOST_BARS = 3000
"""Bars of a timeline, so that it is drawn at once."""
FIGURES = ("ranking", "timeline", "memory", "holders")
TIME_FIGURES = ("waterfall", "breakdown", "roofline")
SIDE_FIGURES = ("now-timeline", "now-memory", "kept-timeline", "kept-memory", "both")
MEASURES = {
    "time": "time_s",
    "90 % interval": "",
    "forward": "forward_s",
    "backward": "backward_s",
    "exposed communication": "exposed_communication_s",
    "peak memory": "peak_memory_bytes",
    "sent per GPU": "sent",
}
FIELD_NAMES = {"subject": "simulated", "seq_len": "sequence length", "gpus": "GPUs", "hardware": "GPU",
               "interference": "kernels and transfers slow each other", "schedule": "schedule looked at",
               "tp": "tensor parallel", "dp": "data parallel", "pp": "pipeline stages"} | PARTS  # fmt: skip

Figures = dict[str, Figure]
Line = tuple[str, str, str, str]


def title_of(answer: Answer) -> str:
    """What is looked at, in a line."""
    return f"{answer.shown.schedule}: {describe_inputs(answer.shown.inputs)}"


def page_figures(answer: Answer) -> Figures:
    """What follows at once when anything changes."""
    shown = answer.shown
    assert shown.timeline is not None
    names = short_names([each.schedule for each in answer.results])
    return {
        "ranking": plot_ranking([_ranked(each, names) for each in answer.results]),
        "timeline": plot_timeline(shown.timeline, max_bars=MOST_BARS),
        "memory": plot_memory(shown.memory_curve or (), answer.capacity_bytes),
        "holders": plot_holders([asdict(each) for each in shown.memory_holders or ()]),
    }


def time_figures(answer: Answer) -> Figures:
    """Where the time of the schedule looked at goes, and that of all."""
    shown = answer.shown
    names = short_names([each.schedule for each in answer.results])
    assert shown.roofline is not None
    return {
        "waterfall": plot_waterfall(shown.breakdown or {}),
        "breakdown": plot_breakdown(
            [{"schedule": names[each.schedule], "parts": each.breakdown} for each in answer.results]
        ),
        "roofline": draw_roofline(shown.roofline),
    }


def links_figure(answer: Answer) -> Figure:
    """The first node with the load of its links."""
    figures = loads_figure(answer.shown)
    return figures[0] if figures else plot_nothing("Load of links", "A node has too many GPUs to be drawn.")


def pareto_figure(answer: Answer) -> Figure:
    """Time against memory of all schedules."""
    columns = ("schedule", "time_s", "peak_memory_bytes", "exact")
    rows = [{name: getattr(each, name) for name in columns} for each in answer.results]
    return plot_pareto(rows, answer.front, answer.capacity_bytes)


def side_figures(now: Answer, kept: Answer) -> Figures:
    """Both set-ups on the same scales, and where the time of each goes."""
    both = {"now": now, "kept": kept}
    longest_ns = max(each.shown.timeline.makespan_ns for each in both.values() if each.shown.timeline)
    most_bytes = max(each.shown.peak_memory_bytes for each in both.values())
    figures: Figures = {}
    for name, each in both.items():
        assert each.shown.timeline is not None
        timeline = each.shown.timeline
        few = sorted({0, critical_rank(timeline)})
        figures[f"{name}-timeline"] = plot_timeline(timeline, few, MOST_BARS, longest_ns)
        figures[f"{name}-timeline"].update_layout(showlegend=False)  # that of both is below
        figures[f"{name}-memory"] = plot_memory(each.shown.memory_curve or (), each.capacity_bytes, most_bytes)
    parts = [
        {"schedule": f"{name} - {each.shown.schedule}", "parts": each.shown.breakdown} for name, each in both.items()
    ]
    return figures | {"both": plot_breakdown(parts)}


def differences(now: State, kept: State) -> list[tuple[str, str, str]]:
    """(field, now, kept) of the fields that differ."""
    old, new = asdict(kept), asdict(now)
    return [
        (FIELD_NAMES.get(name, name.replace("_", " ")), _shown(name, new[name]), _shown(name, old[name]))
        for name in new if new[name] != old[name]
    ]  # fmt: skip


def comparison(now: SimulationResult, kept: SimulationResult | None) -> list[Line]:
    """(measure, now, kept, change) of each measure; the last two empty where nothing was kept."""
    lines: list[Line] = []
    for name, field in MEASURES.items():
        if not field:
            lines.append((name, _interval(now), "" if kept is None else _interval(kept), ""))
            continue
        value, other = _measure(now, field), None if kept is None else _measure(kept, field)
        change = f"{value / other - 1:+.1%}" if other else ""
        show = format_bytes if "memory" in name or "sent" in name else _seconds
        lines.append((name, show(value), "" if other is None else show(other), change))
    return lines


def refusals(answer: Answer) -> list[tuple[str, str]]:
    """Schedules that cannot run, and why."""
    return [(each.schedule, each.reason) for each in answer.outcomes if isinstance(each, Refused)]


def _shown(name: str, value: str) -> str:
    if name == "subject":
        return SUBJECTS.get(value, value)
    return (
        f"{value}×"
        if name in PARTS
        else value or {"schedule": "the best", "hardware": "the topology's"}.get(name, "none")
    )


def _measure(result: SimulationResult, field: str) -> float:
    return float(max(result.bytes_sent_per_rank, default=0)) if field == "sent" else float(getattr(result, field))


def _interval(result: SimulationResult) -> str:
    return f"{_seconds(result.uncertainty.low_s)} to {_seconds(result.uncertainty.high_s)}"


def _seconds(time_s: float) -> str:
    return format_ns(time_s * 1e9)


def _ranked(result: SimulationResult, names: dict[str, str]) -> dict[str, Any]:
    interval = result.uncertainty.to_json()
    return {"schedule": names[result.schedule], "time_s": result.time_s, "exact": result.exact, "uncertainty": interval}

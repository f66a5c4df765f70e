"""An answer as the page shows it: figures, and a table that compares it with the one that was kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simulator.dashboard.answers import Answer
from simulator.result import Refused, SimulationResult
from simulator.tables import describe_inputs
from traces.display import format_bytes, format_ns
from traces.figures.breakdown import plot_breakdown
from traces.figures.embed import Figure
from traces.figures.memory import plot_memory
from traces.figures.palette import short_names
from traces.figures.pareto import plot_pareto
from traces.figures.ranking import plot_ranking
from traces.figures.timeline import plot_timeline
from traces.figures.waterfall import plot_waterfall

MOST_BARS = 3000
"""Bars of a timeline, so that it is drawn at once."""
FIGURES = ("ranking", "timeline", "waterfall", "memory")
LATER_FIGURES = ("breakdown", "pareto")
"""Figures that follow at once, and those that may come a moment later."""
MEASURES = {
    "time": "time_s",
    "forward": "forward_s",
    "backward": "backward_s",
    "exposed communication": "exposed_communication_s",
    "peak memory": "peak_memory_bytes",
    "sent per GPU": "",
}

Line = tuple[str, str, str, str]


@dataclass(frozen=True)
class View:
    """What the page shows of an answer: a title, figures by name, lines of a table, warnings, what can be looked at."""

    title: str
    figures: dict[str, Figure]
    lines: list[Line]
    warnings: list[str]
    schedules: list[str]


def view_of(answer: Answer, kept: Answer | None = None) -> View:
    """An answer, beside the one that was kept, if any."""
    shown = answer.shown
    return View(
        title=f"{shown.schedule}: {describe_inputs(shown.inputs)}",
        figures=_figures(answer),
        lines=comparison(shown, None if kept is None else kept.shown),
        warnings=list(dict.fromkeys(shown.warnings)),
        schedules=[each.schedule for each in answer.results],
    )


def _figures(answer: Answer) -> dict[str, Figure]:
    shown = answer.shown
    assert shown.timeline is not None
    names = short_names([each.schedule for each in answer.results])
    return {
        "ranking": plot_ranking([_ranked(each, names) for each in answer.results]),
        "timeline": plot_timeline(shown.timeline, max_bars=MOST_BARS),
        "waterfall": plot_waterfall(shown.breakdown or {}),
        "memory": plot_memory(shown.memory_curve or (), answer.capacity_bytes),
    }


def later_figures(answer: Answer, kept: Answer | None = None) -> dict[str, Figure]:
    """Where the time of all goes, or of the two that are compared; time against memory."""
    rows = [_row(each) for each in answer.results]
    return {
        "breakdown": plot_breakdown(_breakdowns(answer, kept)),
        "pareto": plot_pareto(rows, answer.front, answer.capacity_bytes),
    }


def _breakdowns(answer: Answer, kept: Answer | None) -> list[dict[str, object]]:
    """Of all that ran; with a kept answer only of the two that are compared."""
    if kept is None:
        names = short_names([each.schedule for each in answer.results])
        return [{"schedule": names[each.schedule], "parts": each.breakdown} for each in answer.results]
    return [
        {"schedule": f"{name}: {each.shown.schedule}".replace(":", " -", 1), "parts": each.shown.breakdown}
        for name, each in (("now", answer), ("kept", kept))
    ]


def comparison(now: SimulationResult, kept: SimulationResult | None) -> list[Line]:
    """(measure, now, kept, change) of each measure; the last two empty where nothing was kept."""
    lines: list[Line] = []
    for name, field in MEASURES.items():
        value, other = _measure(now, field), None if kept is None else _measure(kept, field)
        change = f"{value / other - 1:+.1%}" if other else ""
        show = format_bytes if "memory" in name or "sent" in name else _seconds
        lines.append((name, show(value), "" if other is None else show(other), change))
    return lines


def refusals(answer: Answer) -> list[tuple[str, str]]:
    """Schedules that cannot run, and why."""
    return [(each.schedule, each.reason) for each in answer.outcomes if isinstance(each, Refused)]


def _measure(result: SimulationResult, field: str) -> float:
    return float(getattr(result, field)) if field else float(max(result.bytes_sent_per_rank, default=0))


def _seconds(time_s: float) -> str:
    return format_ns(time_s * 1e9)


def _ranked(result: SimulationResult, names: dict[str, str]) -> dict[str, Any]:
    interval = result.uncertainty.to_json()
    return {"schedule": names[result.schedule], "time_s": result.time_s, "exact": result.exact, "uncertainty": interval}


def _row(result: SimulationResult) -> dict[str, Any]:
    return {name: getattr(result, name) for name in ("schedule", "time_s", "peak_memory_bytes")}

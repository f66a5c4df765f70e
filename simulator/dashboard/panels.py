"""What each view of the page shows of a state: values for its components, in the order of the outputs said here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from dash import Output, html, no_update

from simulator.dashboard.answers import Answer, find_answer
from simulator.dashboard.checks import find_problems
from simulator.dashboard.crossings import Crossings, link_of
from simulator.dashboard.form import MARKED
from simulator.dashboard.measured import load_measured, price_samples
from simulator.dashboard.reproduce import command_line, python_code
from simulator.dashboard.state import State
from simulator.dashboard.views import (
    FIGURES,
    MOST_BARS,
    SIDE_FIGURES,
    TIME_FIGURES,
    comparison,
    differences,
    links_figure,
    page_figures,
    pareto_figure,
    refusals,
    side_figures,
    time_figures,
    title_of,
)
from simulator.evidence import describe_trust, load_evidence, terms_of, unmeasured
from traces.differences import compare_timelines, describe
from traces.display import format_ns, format_part
from traces.errors import InputError
from traces.figures.agreement import plot_agreement
from traces.figures.crossover import plot_crossover
from traces.figures.embed import Figure
from traces.figures.style import plot_nothing
from traces.figures.timeline import plot_timeline
from traces.timeline import Timeline

NOTHING_KEPT = "Nothing is kept yet. Press “Keep to compare”, then change the set-up: both are shown here."
NOTHING_MEASURED = (
    "Name a file or folder on the left: a timeline (Kineto traces or a record of ours), a validation run (its "
    "agreement.json), or a calibration's records. It is shown beside the simulation."
)
LISTED = 12
RUNS = "runs of a validation, against what was predicted when it was made"
CALLS = (
    "attention calls of a calibration, against this GPU's profile; most of them it was fitted to; the calibration's "
    "report has the errors of what was left out"
)


def graph_outputs(names: Sequence[str]) -> list[Output]:
    """Figures, then their heights."""
    return [*[Output(name, "figure") for name in names], *[Output(name, "style") for name in names]]


def graphs(figures: Sequence[Figure]) -> list[Any]:
    """Figures, then styles as high as they are."""
    return [*figures, *[{"height": f"{figure.layout.height}px"} for figure in figures]]


def page_outputs() -> list[Output]:
    """Of what follows at once: marks, the summary, the first view, and what is taken away."""
    texts = ("title", "table", "warnings", "refused", "command", "command-shown", "python")
    return [
        *[Output(f"{name}-field", "className") for name in MARKED],
        *[Output(f"{name}-why", "children") for name in (*MARKED, "form")],
        *graph_outputs(FIGURES),
        *[Output(name, "children") for name in texts],
        *[Output(name, "href") for name in ("json-link", "html-link")],
        Output("link", "data"), Output("schedule", "options"), Output("state", "data"),
        Output("refused-card", "hidden"), Output("drop", "hidden"),
    ]  # fmt: skip


def page_values(answer: Answer, kept: Answer | None, kept_query: str | None) -> list[Any]:
    """All of it but the marks."""
    shown, state, out = answer.shown, answer.state, refusals(answer)
    figures = page_figures(answer)
    query = state.query or "?"
    return [
        *graphs([figures[name] for name in FIGURES]),
        title_of(answer),
        _measures(answer, kept),
        [html.Li(each) for each in dict.fromkeys(shown.warnings)],
        _table(["schedule", "why it cannot run"], out),
        command_line(state, None),
        command_line(state, shown.schedule),
        python_code(state, shown.schedule),
        f"/export.json{query}",
        f"/export.html{query}",
        query + (f"&kept={quote(kept_query or '?', safe='')}" if kept is not None else ""),
        [each.schedule for each in answer.results],
        query,
        not out,
        kept is None,
    ]


def time_values(state: State) -> list[Any]:
    """Waterfall, breakdown, roofline."""
    figures = time_figures(find_answer(state))
    return graphs([figures[name] for name in TIME_FIGURES])


def sure_outputs() -> list[Output]:
    """Of the view that says how far to trust the numbers."""
    return [Output(f"sure-{name}", "children") for name in ("text", "terms", "runs", "lacking")]


def sure_values(state: State) -> list[Any]:
    """The interval and what it rests on; how wrong predictions have been."""
    shown = find_answer(state).shown
    terms, runs = terms_of(shown.provenance), [each.row for each in load_evidence()]
    return [describe_trust(shown), _records(terms), _records(runs), unmeasured()]


def _records(rows: Sequence[Mapping[str, str]]) -> Any:
    return _table(list(rows[0]), [list(row.values()) for row in rows]) if rows else ""


def links_values(state: State) -> list[Any]:
    """The topology with loads."""
    return graphs([links_figure(find_answer(state))])


def pareto_values(state: State) -> list[Any]:
    """Time against memory."""
    return graphs([pareto_figure(find_answer(state))])


def crossover_values(crossings: Crossings, state: State) -> list[Any]:
    """The crossover map."""
    if state.layers != "attention":
        note = "Simulated for attention alone: choose it on the left to see which schedule wins where."
        return graphs([plot_nothing("Which schedule is quickest", note)])
    return graphs([plot_crossover(crossings.rows(state), link_of(state))])


def compare_outputs() -> list[Output]:
    """Of the view that shows two set-ups."""
    return [
        *graph_outputs(SIDE_FIGURES),
        *[Output(name, "children") for name in ("now-title", "kept-title", "differences", "compare-note")],
        Output("compared", "hidden"), Output("compare-empty", "hidden"),
    ]  # fmt: skip


def compare_values(state: State, kept: Answer | None) -> list[Any]:
    """Both set-ups, or how to come to two."""
    if kept is None:
        return [*[no_update] * (len(compare_outputs()) - 3), NOTHING_KEPT, True, False]
    now = find_answer(state)
    figures = side_figures(now, kept)
    changed = differences(now.state, kept.state)
    same = html.P("Nothing: change the set-up on the left.", className="note")
    return [
        *graphs([figures[name] for name in SIDE_FIGURES]),
        title_of(now), title_of(kept),
        _table(["field", "now", "kept"], changed) if changed else same,
        "", False, True,
    ]  # fmt: skip


def measured_outputs() -> list[Output]:
    """Of the view of what was measured."""
    names = ("measured-run", "simulated-run", "agreement")
    return [
        *graph_outputs(names),
        *[Output(f"{name}-card", "hidden") for name in names],
        Output("measured-note", "children"), Output("measured-table", "children"),
    ]  # fmt: skip


def measured_values(state: State) -> list[Any]:
    """What was measured beside the simulation, or how to have it."""
    if not state.measured:
        return [*[no_update] * 6, True, True, True, NOTHING_MEASURED, ""]
    measured = load_measured(state.measured)
    if measured.timeline is not None:
        return _beside(find_answer(state), measured.timeline)
    try:
        points = list(measured.runs) or price_samples(measured.samples, state.request().resolve().profile)
    except InputError as error:
        return [*[no_update] * 6, True, True, True, error.message, ""]
    figure = plot_agreement(points)
    note = f"{len(points)} {RUNS if measured.runs else CALLS}."
    return [no_update, no_update, figure, no_update, no_update, *graphs([figure])[1:], True, True, False, note,
            _errors(points)]  # fmt: skip


def _beside(answer: Answer, measured: Timeline) -> list[Any]:
    simulated = answer.shown.timeline
    assert simulated is not None
    span_ns = max(measured.makespan_ns, simulated.makespan_ns)
    figures = [plot_timeline(each, max_bars=MOST_BARS, span_ns=span_ns) for each in (measured, simulated)]
    for figure, name in zip(figures, ("Measured", f"Simulated: {answer.shown.schedule}"), strict=True):
        figure.layout.title.text = f"<b>{name}</b>"
    note, table = _compared(simulated, measured)
    styles = graphs(figures)[2:]
    return [*figures, no_update, *styles, no_update, False, False, True, note, table]


def _compared(simulated: Timeline, measured: Timeline) -> tuple[str, Any]:
    """What differs, ranked by cost; of another number of ranks only that."""
    try:
        found = compare_timelines(simulated, measured)
    except InputError as error:
        return error.message, ""
    rows = [(format_part(each.name), _time(each.simulated_ns), _time(each.measured_ns))
            for each in found.parts[:LISTED]]  # fmt: skip
    note = format_part(describe(found))
    return f"{note[0].upper()}{note[1:]}.", _table(["part of the critical rank's time", "simulated", "measured"], rows)


def _time(time_ns: int | None) -> str:
    return "none" if time_ns is None else format_ns(time_ns)


def _errors(points: Sequence[dict[str, Any]]) -> html.Table:
    """Median error of each group, and of all."""
    groups: dict[str, list[float]] = {}
    for point in points:
        groups.setdefault(str(point["schedule"]), []).append(point["predicted_s"] / point["measured_s"] - 1)
    rows = [(name, str(len(own)), *_spread(own)) for name, own in sorted(groups.items())]
    every = [error for own in groups.values() for error in own]
    return _table(
        ["group", "points", "median |error|", "median error"], [*rows, ("all", str(len(every)), *_spread(every))]
    )


def _spread(errors: Sequence[float]) -> tuple[str, str]:
    sizes, ordered = sorted(map(abs, errors)), sorted(errors)
    middle = len(errors) // 2
    return f"{sizes[middle]:.1%}", f"{ordered[middle]:+.1%}"


def _measures(answer: Answer, kept: Answer | None) -> html.Table:
    """A column per measure; rows for now, for what was kept, and the change."""
    lines = comparison(answer.shown, None if kept is None else kept.shown)
    names = ["now", "kept", "change"] if kept is not None else ["now"]
    head = html.Tr([html.Th("") if kept is not None else None, *[html.Th(line[0], scope="col") for line in lines]])
    rows = [
        html.Tr([html.Th(name, scope="row") if kept is not None else None, *[html.Td(line[i + 1]) for line in lines]])
        for i, name in enumerate(names)
    ]
    return html.Table([html.Thead(head), html.Tbody(rows)], className="measures")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> html.Table:
    body = [html.Tr([html.Td(text) for text in row]) for row in rows]
    return html.Table([html.Thead(html.Tr([html.Th(text, scope="col") for text in head])), html.Tbody(body)])


def kept_answer(query: str | None) -> Answer | None:
    """Of the kept set-up; None where there is none, or it was made up by a link and cannot run."""
    if query is None:
        return None
    state = State.from_query(query)
    if find_problems(state):
        return None
    try:
        return find_answer(state)
    except InputError:
        return None

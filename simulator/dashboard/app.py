"""The dashboard's callbacks: thin, from the form to a state, an answer, its view, and back into the page.

Served to this machine only: other hosts' names in a request are refused, so that no page elsewhere can reach it by a
name that it points here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, unquote

from dash import Dash, Input, Output, State, ctx, html, no_update
from flask import abort
from flask import request as http_request

from simulator.dashboard.answers import Answer, find_answer
from simulator.dashboard.checks import Problem, find_problem
from simulator.dashboard.crossings import Crossings, link_of
from simulator.dashboard.exports import add_exports
from simulator.dashboard.layout import TEXTS, build_layout
from simulator.dashboard.measured import plot_measured
from simulator.dashboard.state import PARTS, command_line, exponent_of, factor_of, python_code
from simulator.dashboard.state import State as Setup
from simulator.dashboard.views import FIGURES, LATER_FIGURES, View, later_figures, refusals, view_of
from simulator.planning.runners import Runner
from traces.errors import InputError
from traces.figures.crossover import plot_crossover
from traces.figures.embed import Figure

FIELDS = (*TEXTS, "interference", *PARTS, "schedule")
MARKED = (*TEXTS, "what_if")
"""Fields that are marked where they are wrong."""
HOSTS = ("127.0.0.1", "localhost")
LINK_NAMES = {"net": "network", "nvlink": "NVLink", "pcie": "PCIe"}
SHOW_LINK = "function (query) { history.replaceState(null, '', query || location.pathname); return ''; }"


def create_app(runner: Runner) -> Dash:
    """The application.

    Parameters
    ----------
    runner : what simulates the points of crossover maps.
    """
    app = Dash("attnsim", title="attnsim", update_title="", serve_locally=True, enable_mcp=False,
               assets_folder=f"{__file__.rpartition('/')[0]}/assets")  # fmt: skip
    app.layout = build_layout
    app.server.before_request(_refuse_other_hosts)
    add_exports(app.server)
    crossings = Crossings(runner)
    app.callback(
        [*[Output(name, "value") for name in FIELDS], Output("kept", "data")], Input("url", "search")
    )(fill_form)  # fmt: skip
    app.callback(_page_outputs(), [*[Input(name, "value") for name in FIELDS], Input("kept", "data")])(update_page)
    app.callback(
        Output("kept", "data", allow_duplicate=True),
        Input("keep", "n_clicks"), Input("drop", "n_clicks"), State("state", "data"), prevent_initial_call=True,
    )(keep_or_drop)  # fmt: skip
    app.callback(_graph_outputs(LATER_FIGURES), Input("state", "data"), State("kept", "data"))(update_later)
    app.callback([*_graph_outputs(("measured-run",)), Output("measured-run-card", "hidden")], Input("state", "data"))(
        update_measured
    )
    app.callback(_graph_outputs(("crossover",)), Input("state", "data"))(
        lambda query: [no_update] * 2 if query is None else draw_crossover(crossings, Setup.from_query(query))
    )
    app.callback(
        Output("schedule", "value", allow_duplicate=True),
        Input("ranking", "clickData"), State("schedule", "options"), prevent_initial_call=True,
    )(look_at)  # fmt: skip
    app.clientside_callback(SHOW_LINK, Output("linked", "children"), Input("page-link", "href"))  # type: ignore[no-untyped-call]
    return app


def fill_form(search: str | None) -> list[Any]:
    """Values of the form's fields and the kept set-up, from the link that was opened."""
    state = Setup.from_query(search or "")
    texts = [getattr(state, name) for name in TEXTS]
    interference = ["on"] if state.interference == "on" else []
    kept = dict(part.partition("=")[::2] for part in (search or "").lstrip("?").split("&")).get("kept")
    sliders = [exponent_of(getattr(state, part)) for part in PARTS]
    return [*texts, interference, *sliders, state.schedule or None, _unquoted(kept)]


def read_form(values: tuple[Any, ...]) -> Setup:
    """The state of the form's fields."""
    given = dict(zip(FIELDS, values, strict=True))
    given["interference"] = "on" if given["interference"] else "off"
    return Setup.of(given | {part: factor_of(given[part] or 0) for part in PARTS})


def update_page(*values: Any) -> list[Any]:
    """Everything on the page but the crossover map; a wrong field is marked, and the rest stays as it was."""
    state, kept = read_form(values[:-1]), values[-1]
    problem = find_problem(state)
    try:
        if problem is None:
            answer = find_answer(state)
            return [*_marks(None), *_shown(answer, _kept_answer(kept), kept)]
    except InputError as error:
        problem = Problem("", error.message)
    return [*_marks(problem), *[no_update] * (len(_page_outputs()) - 2 * len(MARKED) - 1)]


def keep_or_drop(_keep: int | None, _drop: int | None, query: str | None) -> str | None:
    """The set-up to compare with."""
    return query if ctx.triggered_id == "keep" else None


def look_at(click: Any, options: Any) -> Any:
    """The schedule whose bar was clicked."""
    row = int(click["points"][0]["y"])
    return options[row] if row < len(options or []) else no_update


def update_later(query: str | None, kept: str | None) -> list[Any]:
    """The figures that may come a moment later."""
    if query is None:
        return [no_update] * 2 * len(LATER_FIGURES)
    figures = later_figures(find_answer(Setup.from_query(query)), _kept_answer(kept))
    return _graphs([figures[name] for name in LATER_FIGURES])


def update_measured(query: str | None) -> list[Any]:
    """The measured run, and whether it is hidden: where none is named."""
    name = Setup.from_query(query or "").measured
    return [*_graphs([plot_measured(name)]), False] if name else [no_update, no_update, True]


def draw_crossover(crossings: Crossings, state: Setup) -> list[Any]:
    """The crossover map of a state."""
    return _graphs([plot_crossover(crossings.rows(state), LINK_NAMES[link_of(state)])])


def _graph_outputs(names: Sequence[str]) -> list[Output]:
    return [*[Output(name, "figure") for name in names], *[Output(name, "style") for name in names]]


def _graphs(figures: Sequence[Figure]) -> list[Any]:
    """Figures, then styles as high as they are."""
    return [*figures, *[{"height": f"{figure.layout.height}px"} for figure in figures]]


def _page_outputs() -> list[Output]:
    marks = [Output(f"{name}-field", "className") for name in MARKED]
    reasons = [Output(f"{name}-why", "children") for name in (*MARKED, "form")]
    texts = ("title", "table", "warnings", "refused", "command", "command-shown", "python")
    links = ("json-link", "html-link", "page-link")
    return [
        *marks, *reasons,
        *_graph_outputs(FIGURES),
        *[Output(name, "children") for name in texts],
        *[Output(name, "href") for name in links],
        Output("schedule", "options"), Output("state", "data"), Output("refused-card", "hidden"),
    ]  # fmt: skip


def _marks(problem: Problem | None) -> list[str]:
    """Classes of the fields, then what is said under each and under all."""
    usual = {name: "sliders" if name == "what_if" else "field" for name in MARKED}
    field, message = problem or Problem("none", "")
    classes = [f"{usual[name]} wrong" if name == field else usual[name] for name in MARKED]
    return [*classes, *[message if name == field else "" for name in (*MARKED, "")]]


def _shown(answer: Answer, kept: Answer | None, kept_query: str | None) -> list[Any]:
    view, state, out = view_of(answer, kept), answer.state, refusals(answer)
    schedule = answer.shown.schedule
    query = state.query or "?"
    link = query + (f"&kept={quote(kept_query or '?', safe='')}" if kept is not None else "")
    return [
        *_graphs([view.figures[name] for name in FIGURES]),
        view.title,
        _table(view),
        [html.Li(each) for each in view.warnings],
        html.Table([html.Tr([html.Td(name), html.Td(reason)]) for name, reason in out]),
        command_line(state, None),
        command_line(state, schedule),
        python_code(state, schedule),
        f"/export.json{query}",
        f"/export.html{query}",
        link,
        view.schedules,
        query,
        not out,
    ]


def _table(view: View) -> html.Table:
    compared = any(line[2] for line in view.lines)
    head = ["", "now", "kept", "change"] if compared else ["", "now"]
    rows = [html.Tr([html.Th(line[0]), *[html.Td(text) for text in line[1 : len(head)]]]) for line in view.lines]
    return html.Table([html.Thead(html.Tr([html.Th(text) for text in head])), html.Tbody(rows)], className="measures")


def _kept_answer(query: str | None) -> Answer | None:
    """Of the kept set-up; None where there is none, or it was made up by a link and cannot run."""
    if query is None:
        return None
    state = Setup.from_query(query)
    if find_problem(state) is not None:
        return None
    try:
        return find_answer(state)
    except InputError:
        return None


def _unquoted(text: str | None) -> str | None:
    return None if text is None else unquote(text)


def _refuse_other_hosts() -> None:
    if http_request.host.rpartition(":")[0] not in HOSTS and http_request.host not in HOSTS:
        abort(403)

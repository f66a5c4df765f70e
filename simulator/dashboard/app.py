"""The dashboard's callbacks: thin, from the form to a state, an answer, its view, and back into the page.

A view's figures are made while it is looked at. Served to this machine only: other hosts' names in a request are
refused, so that no page elsewhere can reach it by a name that it points here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dash import Dash, Input, Output, State, ctx, no_update
from flask import abort
from flask import request as http_request

from simulator.dashboard.answers import find_answer
from simulator.dashboard.checks import find_problems, place_problem
from simulator.dashboard.crossings import Crossings
from simulator.dashboard.exports import add_exports
from simulator.dashboard.fields import GROUP_IDS
from simulator.dashboard.form import FIELDS, HIDE_FIELDS, MARKED, fill_form, marks, read_form
from simulator.dashboard.layout import build_layout
from simulator.dashboard.panels import (
    compare_outputs,
    compare_values,
    crossover_values,
    graph_outputs,
    kept_answer,
    links_values,
    measured_outputs,
    measured_values,
    page_outputs,
    page_values,
    pareto_values,
    sure_outputs,
    sure_values,
    time_values,
)
from simulator.dashboard.state import STEP_FIELDS
from simulator.dashboard.state import State as Setup
from simulator.dashboard.views import TIME_FIGURES, VIEWS
from simulator.planning.runners import Runner
from traces.errors import InputError

HOSTS = ("127.0.0.1", "localhost")
SHOW_VIEW = f"function (view) {{ return {list(VIEWS)}.map((name) => name !== view); }}"
SHOW_LINK = f"""function (link, view) {{
  const asked = view === '{next(iter(VIEWS))}' ? link : link + (link === '?' ? '' : '&') + 'view=' + view;
  if (link) history.replaceState(null, '', asked === '?' ? location.pathname : asked);
  return asked || '/';
}}"""


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
    _add_form(app)
    _add_views(app, Crossings(runner))
    return app


def _add_form(app: Dash) -> None:
    app.callback(
        [*[Output(name, "value") for name in FIELDS], Output("kept", "data"), Output("view", "value"),
         Output("schedule", "options", allow_duplicate=True)],
        Input("url", "search"), prevent_initial_call="initial_duplicate",
    )(open_link)  # fmt: skip
    app.callback(page_outputs(), [*[Input(name, "value") for name in FIELDS], Input("kept", "data")])(update_page)
    app.callback(
        Output("kept", "data", allow_duplicate=True),
        Input("keep", "n_clicks"), Input("drop", "n_clicks"), State("state", "data"), prevent_initial_call=True,
    )(keep_or_drop)  # fmt: skip
    app.callback(
        Output("schedule", "value", allow_duplicate=True),
        Input("ranking", "clickData"), State("schedule", "options"), prevent_initial_call=True,
    )(look_at)  # fmt: skip
    hidden = [Output(name, "hidden") for name in (*(f"{name}-field" for name in STEP_FIELDS), *GROUP_IDS.values())]
    app.clientside_callback(HIDE_FIELDS, hidden, Input("subject", "value"))  # type: ignore[no-untyped-call]
    panels = [Output(f"{view}-view", "hidden") for view in VIEWS]
    app.clientside_callback(SHOW_VIEW, panels, Input("view", "value"))  # type: ignore[no-untyped-call]
    app.clientside_callback(  # type: ignore[no-untyped-call]
        SHOW_LINK, Output("page-link", "href"), Input("link", "data"), Input("view", "value"), prevent_initial_call=True
    )


def _add_views(app: Dash, crossings: Crossings) -> None:
    views: list[tuple[str, list[Output], Callable[[Setup], list[Any]]]] = [
        ("time", graph_outputs(TIME_FIGURES), time_values),
        ("sure", sure_outputs(), sure_values),
        ("links", graph_outputs(("link-loads",)), links_values),
        ("trade", graph_outputs(("pareto",)), pareto_values),
        ("trade", graph_outputs(("crossover",)), lambda state: crossover_values(crossings, state)),
        ("measured", measured_outputs(), measured_values),
    ]
    for name, outputs, values in views:
        app.callback(outputs, Input("state", "data"), Input("view", "value"))(_looked_at(name, len(outputs), values))
    app.callback(compare_outputs(), Input("state", "data"), Input("view", "value"), Input("kept", "data"))(
        update_compare
    )


def _looked_at(name: str, count: int, values: Callable[[Setup], list[Any]]) -> Callable[[str | None, str], list[Any]]:
    """A callback that does nothing while another view is looked at."""

    def update(query: str | None, view: str) -> list[Any]:
        return [no_update] * count if query is None or view != name else values(Setup.from_query(query))

    return update


def open_link(search: str | None) -> list[Any]:
    """The form of a link; the schedule that it names is offered at once, as a list drops what it does not offer."""
    filled = fill_form(search)
    schedule = filled[FIELDS.index("schedule")]
    return [*filled, [schedule] if schedule else []]


def update_page(*values: Any) -> list[Any]:
    """Everything that follows at once; a wrong field is marked, and the rest stays as it was."""
    state, kept = read_form(values[:-1]), values[-1]
    problems = find_problems(state)
    try:
        if not problems:
            answer = find_answer(state)
            return [*marks(()), *page_values(answer, kept_answer(kept), kept)]
    except InputError as error:
        problems = [place_problem(error.message, state)]
    return [*marks(problems), *[no_update] * (len(page_outputs()) - 2 * len(MARKED) - 1)]


def update_compare(query: str | None, view: str, kept: str | None) -> list[Any]:
    """Two set-ups side by side, while they are looked at."""
    if query is None or view != "compare":
        return [no_update] * len(compare_outputs())
    return compare_values(Setup.from_query(query), kept_answer(kept))


def keep_or_drop(_keep: int | None, _drop: int | None, query: str | None) -> str | None:
    """The set-up to compare with."""
    return query if ctx.triggered_id == "keep" else None


def look_at(click: Any, options: Any) -> Any:
    """The schedule whose bar was clicked."""
    row = int(click["points"][0]["y"])
    return options[row] if row < len(options or []) else no_update


def _refuse_other_hosts() -> None:
    if http_request.host.rpartition(":")[0] not in HOSTS and http_request.host not in HOSTS:
        abort(403)

"""The page: a form on the left, what it comes to on the right, one view at a time. All is served from this machine."""

from __future__ import annotations

from typing import Any

from dash import dcc, html

from simulator.dashboard.fields import ALL, GROUP_IDS, GROUPS, HELP, Field
from simulator.dashboard.state import PARTS, SUBJECTS, State
from simulator.dashboard.views import SIDE_FIGURES, VIEWS
from traces.figures.embed import CONFIG as FIGURE_CONFIG

CONFIG: Any = FIGURE_CONFIG
WORKING = "Simulating the map of lengths and bandwidths\u2026"
MARKS = {-3: "⅛×", -2: "¼×", -1: "½×", 0: "1×", 1: "2×", 2: "4×", 3: "8×"}
EXPORTS = {"command": "Ranking", "command-shown": "Schedule looked at", "python": "Schedule looked at, in Python"}
BLANK = {"data": [], "layout": {"xaxis": {"visible": False}, "yaxis": {"visible": False}}}
BLANK_PIXELS = 380


def build_layout() -> html.Div:
    """All of the page; its contents come by callbacks."""
    stores = [dcc.Location(id="url", refresh=False), *[dcc.Store(id=name) for name in ("state", "kept", "link")]]
    panels = [html.Div(_panel(view), id=f"{view}-view", className="view") for view in VIEWS]
    return html.Div([*stores, _form(), html.Main([_summary(), _tabs(), *panels])], className="page")


def _form() -> html.Aside:
    return html.Aside(
        [
            html.H1("attnsim"),
            html.Div(id="form-why", className="why", role="alert"),
            *[
                _group(title, [*([_subject()] if title == "What" else []), *_fields(names)], GROUP_IDS.get(title))
                for title, names in GROUPS.items()
            ],
            _group("What if faster or slower", [_sliders()]),
            _group("Beside it, measured", _fields(("measured",))),
            _buttons(),
        ]
    )


def _group(title: str, children: list[Any], name: str | None = None) -> html.Section:
    group = html.Section([html.H2(title), html.Div(children, className="fields")], className="group")
    if name is not None:
        group.id = name  # type: ignore[attr-defined]
    return group


def _subject() -> html.Div:
    options = [{"label": text, "value": value or "attention"} for value, text in SUBJECTS.items()]
    choice: Any = dcc.Dropdown(id="subject", options=options, value="attention", clearable=False, searchable=False)
    return html.Div(
        [html.Label("Simulated", htmlFor="subject"), choice, html.Div(id="subject-why", className="why", role="alert")],
        id="subject-field",
        className="field",
    )


def _fields(names: tuple[str, ...]) -> list[Any]:
    return [_field(name, ALL[name]) for name in names]


def _field(name: str, shown: Field) -> html.Div:
    """A field with its label, and a place to say what is wrong with it."""
    label = [] if shown.kind == "flag" else [html.Label(shown.label, htmlFor=name)]
    why = html.Div(id=f"{name}-why", className="why", role="alert")
    parts = [*label, *_inputs(name, shown), why]
    return html.Div(parts, id=f"{name}-field", className=field_class(name), title=HELP.get(name, ""))


def _inputs(name: str, shown: Field) -> list[Any]:
    """What is filled in or chosen."""
    widgets: Any = dcc
    if shown.kind == "flag":
        options = [{"label": shown.label, "value": "on"}]
        return [widgets.Checklist(id=name, options=options, value=[], className="check")]
    if shown.kind == "choice":
        empty = getattr(State(), name) == ""
        return [widgets.Dropdown(id=name, options=list(shown.offers), placeholder=shown.hint, clearable=empty,
                                 searchable=False)]  # fmt: skip
    offers = html.Datalist([html.Option(value=each) for each in shown.offers], id=f"{name}-list")
    entry = widgets.Input(id=name, type="text", debounce=True, list=f"{name}-list", placeholder=shown.hint,
                          spellCheck=False, autoComplete="off")  # fmt: skip
    return [entry, offers]


def field_class(name: str) -> str:
    """Class of a field that is right."""
    if name == "what_if":
        return "sliders"
    return "field" if name == "subject" or ALL[name].wide else "field narrow"


def _sliders() -> html.Div:
    sliders = [_slider(name, label) for name, label in PARTS.items()]
    return html.Div(
        [
            html.Div(sliders, id="what_if-field", className="sliders"),
            html.Div(id="what_if-why", className="why", role="alert"),
            _field("interference", ALL["interference"]),
        ],
        className="wide",
    )


def _slider(name: str, label: str) -> html.Div:
    slider: Any = dcc.Slider(id=name, min=-3, max=3, step=0.5, marks=MARKS, value=0, updatemode="mouseup",
                             allow_direct_input=False)  # fmt: skip
    return html.Div([html.Label(label, id=f"{name}-label"), slider], className="slider")


def _buttons() -> html.Div:
    return html.Div(
        [
            html.Button("Keep to compare", id="keep", className="button main"),
            html.Button("Drop what is kept", id="drop", className="button", hidden=True),
            html.A("Start again", href="/", className="button"),
        ],
        className="buttons",
    )


def _summary() -> html.Section:
    choice: Any = dcc.Dropdown(id="schedule", placeholder="the best", clearable=True, searchable=False)
    return html.Section(
        [
            html.P(id="title", className="title", role="status"),
            html.Div([html.Label("Schedule looked at", htmlFor="schedule"), choice], className="field look"),
            html.Div(id="table", className="scroll"),
            html.Ul(id="warnings", className="warnings"),
        ],
        id="summary",
    )


def _tabs() -> html.Div:
    options = [{"label": label, "value": view} for view, label in VIEWS.items()]
    return html.Div(dcc.RadioItems(id="view", options=options, value=next(iter(VIEWS)), inline=True, className="tabs"))


def _panel(view: str) -> list[Any]:
    """What a view shows, one below the other."""
    if view == "ranking":
        refused = html.Section([html.H2("Refused"), html.Div(id="refused", className="scroll")], id="refused-card")
        return [*[_card(name) for name in ("ranking", "timeline", "memory", "holders")], refused]
    if view == "time":
        return [_card(name) for name in ("waterfall", "breakdown", "roofline")]
    if view == "sure":
        return [_sure()]
    if view == "links":
        return [_card("link-loads")]
    if view == "trade":
        waiting: Any = dcc.Loading(
            _graph("crossover"), delay_show=300, custom_spinner=html.P(WORKING, className="note")
        )
        return [html.Section(waiting), _card("pareto")]
    if view == "compare":
        return [_side_by_side()]
    return [_measured()] if view == "measured" else [_exports()]


def _sure() -> html.Div:
    tables: dict[str, list[Any]] = {
        "Terms of this prediction, and the 90 % band of each": [html.Div(id="sure-terms", className="scroll")],
        "How wrong predictions have been": [
            html.Div(id="sure-runs", className="scroll"),
            html.P(id="sure-lacking", className="note"),
        ],
    }
    text = html.Section([html.H2("How far to trust this"), html.P(id="sure-text", className="note")])
    sections: list[Any] = [text, *[html.Section([html.H2(title), *blocks]) for title, blocks in tables.items()]]
    return html.Div(sections, className="view")


def _side_by_side() -> html.Div:
    columns = [
        html.Div([html.H2(heading), html.P(id=f"{who}-title", className="about"), *[_graph(each) for each in figures]],
                 className="column")
        for who, heading, figures in (("now", "Now", SIDE_FIGURES[:2]), ("kept", "Kept", SIDE_FIGURES[2:4]))
    ]  # fmt: skip
    return html.Div(
        [
            html.Section(html.P(id="compare-note", className="note"), id="compare-empty"),
            html.Div(
                [
                    html.Section([html.H2("What differs"), html.Div(id="differences", className="scroll")]),
                    html.Section(columns, className="columns"),
                    _card("both"),
                ],
                id="compared",
                hidden=True,
                className="view",
            ),
        ],
        className="view",
    )


def _measured() -> html.Div:
    return html.Div(
        [
            html.Section(
                [
                    html.H2("Measured"),
                    html.P(id="measured-note", className="note"),
                    html.Div(id="measured-table", className="scroll"),
                ]
            ),
            html.Section(_graph("measured-run"), id="measured-run-card", hidden=True),
            html.Section(_graph("simulated-run"), id="simulated-run-card", hidden=True),
            html.Section(_graph("agreement"), id="agreement-card", hidden=True),
        ],
        className="view",
    )


def _card(name: str) -> html.Section:
    return html.Section(_graph(name), id=f"{name}-card")


def _graph(name: str) -> dcc.Graph:
    style = {"height": f"{BLANK_PIXELS}px"}
    return dcc.Graph(id=name, figure=BLANK, config=CONFIG, style=style, responsive=True)


def _exports() -> html.Section:
    blocks = [
        html.Div([html.Div([html.H3(label), dcc.Clipboard(target_id=name, title="copy", className="copy")]),
                  html.Pre(id=name)], className="export")
        for name, label in EXPORTS.items()
    ]  # fmt: skip
    links = html.Div(
        [
            html.A("JSON of the ranking", id="json-link", className="button"),
            html.A("HTML report", id="html-link", className="button"),
            html.A("Link to this page", id="page-link", className="button"),
        ],
        className="buttons",
    )
    return html.Section([html.H2("Take it away"), *blocks, links])

"""The page: a form on the left, what it comes to on the right, one view at a time. All is served from this machine."""

from __future__ import annotations

from typing import Any

from dash import dcc, html

from cost_models.hardware import HARDWARE_NAMES
from cost_models.models import PRESET_NAMES
from cost_models.topology.presets import PRESETS
from simulator.dashboard.state import PARTS, STEP_FIELDS, SUBJECTS
from simulator.dashboard.views import SIDE_FIGURES, VIEWS
from simulator.layers.checkpoint import CHECKPOINTS
from traces.figures.embed import CONFIG as FIGURE_CONFIG

INTERFERENCE = "kernels and transfers slow each other (slower to compute)"
CONFIG: Any = FIGURE_CONFIG
MASKS = ("causal", "full", "sliding-window:window=4096", "document:lengths=64k+64k,causal=true")
DEGREES = ("1", "2", "4", "8")
TEXTS = {
    "model": ("Model", "a name or a config.json", PRESET_NAMES),
    "seq_len": ("Sequence length", "tokens, as 128k", ("32k", "64k", "128k", "256k", "512k", "1M")),
    "batch": ("Sequences", "batch", DEGREES),
    "mask": ("Mask", "NAME:key=value", MASKS),
    "topology": ("Topology", "a preset or a file", tuple(PRESETS)),
    "hardware": ("GPU", "its own", HARDWARE_NAMES),
    "gpus": ("GPUs", "1 to 128", ("2", "4", "8", "16", "32", "64")),
    "tp": ("Tensor", "ranks", DEGREES),
    "dp": ("Data", "ranks", DEGREES),
    "pp": ("Pipeline", "stages", DEGREES),
    "zero": ("ZeRO", "0 to 3", ("0", "1", "2", "3")),
    "microbatches": ("Microbatches", "of a data parallel rank", DEGREES),
    "loss_chunks": ("Loss chunks", "whole logits", ("8", "16", "32")),
    "checkpoint": ("Checkpoint", "what is recomputed", CHECKPOINTS),
    "method": ("Method", "full, or of fine-tuning", ("full", "lora:rank=16", "qlora:rank=16")),
    "measured": ("Timeline, validation or calibration", "a file or folder", ()),
}
"""Fields of text: label, what goes in, suggestions."""
NARROW = ("seq_len", "batch", "hardware", "gpus", "tp", "dp", "pp", "zero", "microbatches", "loss_chunks",
          "checkpoint", "method")  # fmt: skip
GROUPS = {
    "What": ("model", "seq_len", "batch", "mask"),
    "Where": ("topology", "hardware", "gpus"),
    "How it is split": STEP_FIELDS,
}
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
            _group("What", [_subject(), *_fields(GROUPS["What"])]),
            _group("Where", _fields(GROUPS["Where"])),
            _group("How it is split", _fields(GROUPS["How it is split"]), "split"),
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
    return [_text_field(name, *TEXTS[name]) for name in names]


def _text_field(name: str, label: str, hint: str, suggestions: tuple[str, ...]) -> html.Div:
    return html.Div([
        html.Label(label, htmlFor=name),
        dcc.Input(id=name, type="text", debounce=True, list=f"{name}-list", placeholder=hint, spellCheck=False,
                  autoComplete="off"),
        html.Datalist([html.Option(value=each) for each in suggestions], id=f"{name}-list"),
        html.Div(id=f"{name}-why", className="why", role="alert"),
    ], id=f"{name}-field", className=field_class(name))  # fmt: skip


def field_class(name: str) -> str:
    """Class of a field that is right."""
    if name == "what_if":
        return "sliders"
    return "field narrow" if name in NARROW else "field"


def _sliders() -> html.Div:
    sliders = [_slider(name, label) for name, label in PARTS.items()]
    check: Any = dcc.Checklist(
        id="interference", options=[{"label": INTERFERENCE, "value": "on"}], value=[], className="check"
    )
    return html.Div(
        [
            html.Div(sliders, id="what_if-field", className="sliders"),
            html.Div(id="what_if-why", className="why", role="alert"),
            check,
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
    if view == "links":
        return [_card("link-loads")]
    if view == "trade":
        waiting = dcc.Loading(_graph("crossover"), delay_show=300, type="dot", color="#0072B2")
        return [html.Section(waiting), _card("pareto")]
    if view == "compare":
        return [_side_by_side()]
    return [_measured()] if view == "measured" else [_exports()]


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

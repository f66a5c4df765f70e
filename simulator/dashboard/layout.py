"""The page: a form on the left, what it comes to on the right. Everything is served from this machine."""

from __future__ import annotations

from typing import Any

from dash import dcc, html

from cost_models.hardware import HARDWARE_NAMES
from cost_models.models import PRESET_NAMES
from cost_models.topology.presets import PRESETS
from simulator.dashboard.state import PARTS
from simulator.dashboard.views import LATER_FIGURES
from traces.figures.embed import CONFIG as FIGURE_CONFIG

INTERFERENCE = "kernels and transfers slow each other (slower to compute)"
CONFIG: Any = FIGURE_CONFIG
MASKS = ("causal", "full", "sliding-window:window=4096", "document:lengths=64k+64k,causal=true")
TEXTS = {
    "model": ("Model", "a name or a config.json", PRESET_NAMES),
    "topology": ("Topology", "a preset or a file", tuple(PRESETS)),
    "hardware": ("GPU", "the topology's own", HARDWARE_NAMES),
    "gpus": ("GPUs", "1 to 128", ("2", "4", "8", "16", "32", "64")),
    "seq_len": ("Sequence length", "tokens, as 128k", ("32k", "64k", "128k", "256k", "512k", "1M")),
    "mask": ("Mask", "NAME:key=value", MASKS),
    "measured": ("Measured run", "traces to show beside it", ()),
}
"""Fields of text: label, what goes in, suggestions."""
MARKS = {-3: "⅛×", -2: "¼×", -1: "½×", 0: "1×", 1: "2×", 2: "4×", 3: "8×"}
CARDS = ("ranking", "timeline", "measured-run", "waterfall", "memory")
BLANK = {"data": [], "layout": {"xaxis": {"visible": False}, "yaxis": {"visible": False}}}
BLANK_PIXELS = 380


def build_layout() -> html.Div:
    """All of the page; its contents come by callbacks."""
    return html.Div(
        className="page",
        children=[
            dcc.Location(id="url", refresh=False),
            dcc.Store(id="state"),
            dcc.Store(id="kept"),
            html.Div(id="linked", hidden=True),
            _form(),
            html.Main(
                [
                    _summary(),
                    *[_card(name) for name in CARDS],
                    _crossover(),
                    *[_card(name) for name in LATER_FIGURES],
                    _refusals(),
                    _exports(),
                ]
            ),
        ],
    )


def _form() -> html.Aside:
    fields = [_text_field(name, *each) for name, each in TEXTS.items()]
    sliders = [_slider(name, label) for name, label in PARTS.items()]
    return html.Aside([
        html.H1("attnsim"),
        html.Div(fields, className="fields"),
        html.Div(id="form-why", className="why", role="alert"),
        dcc.Checklist(id="interference", options=[{"label": INTERFERENCE, "value": "on"}], value=[], className="check"),
        html.H2("What if faster or slower"),
        html.Div(sliders, id="what_if-field", className="sliders"),
        html.Div(id="what_if-why", className="why", role="alert"),
        html.Div([html.Button("Keep to compare", id="keep"), html.Button("Drop", id="drop"),
                  html.A("Start again", href="/", className="button")], className="buttons"),
    ])  # fmt: skip


def _text_field(name: str, label: str, hint: str, suggestions: tuple[str, ...]) -> html.Div:
    return html.Div([
        html.Label(label, htmlFor=name),
        dcc.Input(id=name, type="text", debounce=True, list=f"{name}-list", placeholder=hint, spellCheck=False,
                  autoComplete="off"),
        html.Datalist([html.Option(value=each) for each in suggestions], id=f"{name}-list"),
        html.Div(id=f"{name}-why", className="why", role="alert"),
    ], id=f"{name}-field", className="field")  # fmt: skip


def _slider(name: str, label: str) -> html.Div:
    slider: Any = dcc.Slider(id=name, min=-3, max=3, step=0.5, marks=MARKS, value=0, updatemode="mouseup",
                             allow_direct_input=False)  # fmt: skip
    return html.Div([html.Label(label, id=f"{name}-label"), slider], className="slider")


def _summary() -> html.Section:
    return html.Section(
        [
            html.P(id="title", className="title"),
            html.Div(
                [
                    html.Label("Schedule looked at", htmlFor="schedule"),
                    dcc.Dropdown(id="schedule", placeholder="the best", clearable=True, searchable=False),
                ],
                className="field look",
            ),
            html.Div(id="table", className="scroll"),
            html.Ul(id="warnings", className="warnings"),
        ],
        id="summary",
    )


def _card(name: str) -> html.Section:
    return html.Section(_graph(name), id=f"{name}-card")


def _crossover() -> html.Section:
    return html.Section(dcc.Loading(_graph("crossover"), delay_show=300, type="dot", color="#0072B2"))


def _graph(name: str) -> dcc.Graph:
    style = {"height": f"{BLANK_PIXELS}px"}
    return dcc.Graph(id=name, figure=BLANK, config=CONFIG, style=style, responsive=True)


def _refusals() -> html.Section:
    return html.Section([html.H2("Refused"), html.Div(id="refused", className="scroll")], id="refused-card")


def _exports() -> html.Section:
    texts = {"command": "Ranking", "command-shown": "Schedule looked at", "python": "Python"}
    blocks = [
        html.Div([html.Div([html.H3(label), dcc.Clipboard(target_id=name, title="copy", className="copy")]),
                  html.Pre(id=name)], className="export")
        for name, label in texts.items()
    ]  # fmt: skip
    links = html.Div(
        [
            html.A("JSON", id="json-link", className="button"),
            html.A("HTML report", id="html-link", className="button"),
            html.A("Link to this page", id="page-link", className="button"),
        ],
        className="buttons",
    )
    return html.Section([html.H2("Take it away"), *blocks, links])

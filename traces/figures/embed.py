"""Figures as HTML fragments that share one copy of plotly.js (4.8 MB)."""

from __future__ import annotations

import re
from html import escape
from typing import TypeAlias

import plotly.graph_objects as go
from plotly.io import to_html
from plotly.offline import get_plotlyjs

# Nothing is sent anywhere: without the button that uploads a chart, and without an address to upload to.
UNWANTED_BUTTONS = ["select2d", "lasso2d", "autoScale2d", "sendChartToCloud"]
CONFIG = {"responsive": True, "displaylogo": False, "modeBarButtonsToRemove": UNWANTED_BUTTONS, "plotlyServerURL": ""}

Figure: TypeAlias = go.Figure


def is_figure(block: object) -> bool:
    """Whether an object is a plotly figure."""
    return isinstance(block, go.Figure)


def plotly_javascript() -> str:
    """The library itself, to be put into one script element before the fragments."""
    return str(get_plotlyjs())


def figure_html(figure: Figure, div_id: str) -> str:
    """A fragment that draws one figure; markup in its texts cannot end the script."""
    drawing = to_html(
        figure,
        config=CONFIG,
        include_plotlyjs=False,
        full_html=False,
        div_id=div_id,
        default_height=f"{figure.layout.height or 450}px",
    )
    name = escape(re.sub("<[^>]*>", "", str(figure.layout.title.text or "Figure")))
    return f'<div class="figure" role="figure" aria-label="{name}">{drawing}</div>'

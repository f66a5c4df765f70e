"""What all figures share: fonts, grid, a title with a note under it, the legend below, and text that cannot be markup.

Title and legend are placed against the container and claim their own margins, so that neither covers the plot or is
cut at any width.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go

from traces.display import Unit

TEXT, MUTED, GRID = "#1F2933", "#52606D", "#E3E6EA"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
NOTE_CHARACTERS, NAME_CHARACTERS = 88, 30
NAME_LINE_PIXELS, ROW_PADDING_PIXELS, BAR_HEIGHT = 17, 16, 0.56
TITLE_PIXELS, NOTE_LINE_PIXELS, FOOT_PIXELS = 46, 18, 96
AXIS_TITLE_PIXELS = 10
"""Between the title of an axis and its ticks."""
FEW_DECADES = 3
"""Decades up to which a logarithmic axis has ticks between its powers of ten."""
NARROW_PIXELS, LEGEND_LINE_PIXELS, LEGEND_MARK_PIXELS, LEGEND_CHARACTER_PIXELS = 660, 20, 46, 7
"""Width of a figure on a screen of 800 pixels, and what a legend takes."""


def new_figure(title: str, note: str, plot_pixels: int) -> go.Figure:
    """An empty figure of our style.

    Parameters
    ----------
    title : a few words.
    note : a sentence under the title, wrapped; may be empty.
    plot_pixels : height of the plot itself.
    """
    lines = textwrap.wrap(note, NOTE_CHARACTERS)
    top = TITLE_PIXELS + NOTE_LINE_PIXELS * len(lines)
    axis = {
        "gridcolor": GRID, "zeroline": False, "automargin": True, "linecolor": GRID, "ticks": "",
        "title": {"font": {"size": 13, "color": MUTED}, "standoff": AXIS_TITLE_PIXELS},
    }  # fmt: skip
    # Made at once: plotly takes ten times as long for the same in steps.
    layout = {
        "template": "none",
        "height": top + plot_pixels + FOOT_PIXELS,
        "margin": {"l": 2, "r": 24, "t": top, "b": 56},
        "font": {"family": FONT, "size": 13, "color": TEXT},
        "title": _title(title, lines),
        "legend": {
            "orientation": "h",
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "x": 0,
            "xref": "container",
            "xanchor": "left",
        },
        "hoverlabel": {"align": "left", "bgcolor": "white", "font": {"family": FONT, "size": 13, "color": TEXT}},
        "plot_bgcolor": "white",
        "paper_bgcolor": "white",
        "xaxis": axis | {"rangemode": "tozero"},
        "yaxis": axis,
    }  # fmt: skip
    return go.Figure(layout=layout)


def plot_nothing(title: str, note: str) -> go.Figure:
    """A figure that says why there is nothing to see."""
    figure = new_figure(title, note, 0)
    hidden = {"visible": False, "fixedrange": True}
    figure.update_layout(xaxis=hidden, yaxis=hidden, margin_b=0, height=figure.layout.margin.t + 12)
    return figure


def safe(text: object) -> str:
    """Text that plotly shows as it is: its labels know a few HTML tags.

    >>> safe("a<b>c")
    'a&lt;b&gt;c'
    """
    return escape(str(text), quote=False)


def wrapped_name(name: str) -> str:
    """A schedule's name for an axis: the schedule, and its settings on lines of their own.

    >>> wrapped_name("usp:ulysses=4,ring=2")
    'usp<br>ulysses=4, ring=2'
    """
    head, _, settings = name.partition(":")
    lines = [head, *textwrap.wrap(settings.replace(",", ", "), NAME_CHARACTERS, break_on_hyphens=False)]
    return "<br>".join(safe(line) for line in lines)


def row_pixels(labels: list[str]) -> int:
    """Height of a row in which the longest of the labels has room."""
    lines = max((label.count("<br>") + 1 for label in labels), default=1)
    return NAME_LINE_PIXELS * max(lines, 2) + ROW_PADDING_PIXELS


def make_room_for_legend(figure: go.Figure) -> None:
    """Make a figure higher where its legend has more than one line on a narrow screen."""
    names = [str(trace.name) for trace in figure.data if trace.showlegend is not False]
    longest = max((len(name) for name in names), default=0)
    columns = max(NARROW_PIXELS // (LEGEND_MARK_PIXELS + LEGEND_CHARACTER_PIXELS * max(longest, 1)), 1)
    lines = -(-len(names) // columns)
    figure.update_layout(height=figure.layout.height + LEGEND_LINE_PIXELS * max(lines - 1, 0))


def label_rows(figure: go.Figure, positions: list[float], labels: list[str]) -> None:
    """Name the rows of a horizontal chart, the first on top."""
    figure.update_yaxes(
        tickvals=positions,
        ticktext=labels,
        ticklabelstandoff=8,
        range=[max(positions, default=0) + 0.6, -0.6],
        showgrid=False,
        fixedrange=True,
    )


def add_lengths(figure: go.Figure, lengths_ns: Sequence[float], texts: Sequence[str], unit: Unit) -> None:
    """The length in words at the end of each bar, and room for it."""
    look = {"showarrow": False, "xanchor": "left", "xshift": 6, "font": {"color": MUTED}}
    texts_at = enumerate(zip(lengths_ns, texts, strict=True))
    # All at once: plotly checks every annotation again for each that is added.
    figure.update_layout(
        annotations=[{"x": end / unit[1], "y": row, "text": text, **look} for row, (end, text) in texts_at]
    )
    longest = max(lengths_ns, default=0) or 1
    figure.update_xaxes(title_text=f"time ({unit[0]})", range=[0, 1.16 * longest / unit[1]])


def log_axis(values: Sequence[float]) -> dict[str, object]:
    """A logarithmic axis for positive values, every tick with its whole number: 1, 2 and 5 of up to three decades.

    >>> log_axis([0.4, 7])["ticktext"], log_axis([3, 50_000])["ticktext"]
    (['0.2', '0.5', '1', '2', '5', '10'], ['1', '10', '100', '1000', '10,000', '100,000'])
    """
    lowest, highest = math.log10(min(values)), math.log10(max(values))
    steps = (1, 2, 5) if highest - lowest < FEW_DECADES else (1,)
    decades = range(math.floor(lowest), math.ceil(highest) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    first = max((i for i, tick in enumerate(ticks) if math.log10(tick) <= lowest), default=0)
    last = min((i for i, tick in enumerate(ticks) if math.log10(tick) >= highest), default=len(ticks) - 1)
    shown = ticks[first : last + 1]
    return {
        "type": "log", "rangemode": "normal", "tickmode": "array", "tickvals": shown,
        "ticktext": [f"{tick:,.0f}" if tick >= 10_000 else f"{tick:g}" for tick in shown],
    }  # fmt: skip


def _title(title: str, note_lines: list[str]) -> dict[str, object]:
    note = "<br>".join(safe(line) for line in note_lines)
    return {
        "text": f"<b>{safe(title)}</b>",
        "font": {"size": 16},
        "subtitle": {"text": note, "font": {"size": 13, "color": MUTED}},
        "x": 0,
        "xref": "container",
        "xanchor": "left",
        "y": 1,
        "yref": "container",
        "yanchor": "top",
        "pad": {"t": 12},
    }

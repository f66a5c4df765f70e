"""A measured run beside the simulation: a folder of Kineto traces, or a record of ours."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from traces.errors import InputError
from traces.figures.embed import Figure
from traces.figures.timeline import plot_timeline
from traces.sources import load_recording
from traces.timeline import Timeline

MOST_BARS = 3000


def load_measured(name: str) -> Timeline:
    """The timeline of a run; read again where its file has changed.

    Raises
    ------
    InputError
        Where it cannot be read.
    """
    try:
        changed_ns = Path(name).stat().st_mtime_ns
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no path"
        raise InputError("a measured run cannot be read", got=f"{name} ({reason})") from None
    return _load(name, changed_ns)


def plot_measured(name: str) -> Figure:
    """Its timeline as a figure."""
    figure = plot_timeline(load_measured(name), max_bars=MOST_BARS)
    figure.layout.title.text = "<b>Measured</b>"
    return figure


@lru_cache(maxsize=8)
def _load(name: str, _changed_ns: int) -> Timeline:
    return load_recording(name).timeline

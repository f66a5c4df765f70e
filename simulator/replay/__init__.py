"""Published measurements predicted again: predicted against published, error by source and method.

A *source* (`source.Source`, one module each in ``sources/``) says of every published row what this toolkit predicts for
it, or why it cannot. Constants that nobody published (the efficiency of a kernel there is no profile of, the rate of a
cluster's network) come from a committed fit, which names the rows it was fitted on; those rows are left out of the
error, and nothing is ever fitted to a user's file.

Interface: :data:`SOURCES`, :func:`replay`, :class:`ReplayRow`, :func:`summarise`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.replay.registry import SOURCES
    from simulator.replay.run import ReplayRow, replay
    from simulator.replay.summary import summarise

_MODULES = {"SOURCES": "registry", "ReplayRow": "run", "replay": "run", "summarise": "summary"}

__all__ = ["SOURCES", "ReplayRow", "replay", "summarise"]


def __getattr__(name: str) -> Any:
    """Imported when used: the command's help needs none of it."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"simulator.replay.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'simulator.replay' has no attribute {name!r}")

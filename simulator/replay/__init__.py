"""Published measurements predicted again: predicted against published, error by source and method.

A *source* (`source.Source`, one module each in ``sources/``) says of every published row what this toolkit predicts for
it, or why it cannot. Constants that nobody published (the efficiency of a kernel there is no profile of, the rate of a
cluster's network) come from a committed fit, which names the rows it was fitted on; those rows are left out of the
error, and nothing is ever fitted to a user's file.

Interface: :data:`SOURCES`, :func:`replay`, :class:`ReplayRow`, :func:`summarise`.
"""

from simulator.replay.registry import SOURCES
from simulator.replay.run import ReplayRow, replay
from simulator.replay.summary import summarise

__all__ = ["SOURCES", "ReplayRow", "replay", "summarise"]

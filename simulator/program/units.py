"""Where the units of a step begin: weights, embedding, layers, end, in each pass over them.

A step is periodic in its layers. Whoever makes use of that (`simulator.following`) is a sink that is also told where
units begin; other sinks know nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable

from simulator.program.tape import Sink

Tell = Callable[[str, int | None], None]


class Unitwise:
    """A sink that is told where units begin."""

    def unit(self, section: str, layer: int | None) -> None:
        """A unit of a section begins: a layer by its number, or something else that a section has once."""
        raise NotImplementedError


def tell_units(sink: Sink) -> Tell:
    """Where to tell of units."""
    return sink.unit if isinstance(sink, Unitwise) else _tell_nobody


def _tell_nobody(section: str, layer: int | None) -> None:
    """Nobody asks."""

"""Millions of small objects at once: Python's cycle collector would look through all of them again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the cycle collector, where what is made has no cycles; objects without references are freed as ever.

    >>> with collector_paused():
    ...     gc.isenabled()
    False
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def set_apart() -> None:
    """Have the collector look no more at what lives now: for what is made to last, where answers must be quick."""
    gc.collect()
    gc.freeze()

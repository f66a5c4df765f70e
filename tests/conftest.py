"""Settings for all tests: hypothesis draws the same examples everywhere and has no deadline on a busy machine."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("attnsim", derandomize=True, deadline=None)
settings.load_profile("attnsim")

"""Settings for all tests: hypothesis draws the same examples everywhere and has no deadline on a busy machine."""

from __future__ import annotations

import pytest
from hypothesis import settings
from pytest import FixtureRequest, Parser

settings.register_profile("attnsim", derandomize=True, deadline=None)
settings.load_profile("attnsim")


def pytest_addoption(parser: Parser) -> None:
    """``--update-golden`` writes golden files anew instead of comparing with them."""
    parser.addoption("--update-golden", action="store_true", help="write golden files instead of comparing with them")


@pytest.fixture
def update_golden(request: FixtureRequest) -> bool:
    """Whether golden files are to be written."""
    return bool(request.config.getoption("--update-golden"))

"""The command: help without Dash, and one message where it cannot start."""

from __future__ import annotations

import socket
import sys

import pytest

import attnsim


def test_a_port_in_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SystemExit, match="2"):
            attnsim.main(["dashboard", "--port", str(taken.getsockname()[1])])
    assert "port cannot be used" in capsys.readouterr().err


def test_without_dash_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "dash", None)
    monkeypatch.delitem(sys.modules, "simulator.dashboard.app", raising=False)
    monkeypatch.delitem(sys.modules, "simulator.dashboard.layout", raising=False)
    with pytest.raises(SystemExit, match="2"):
        attnsim.main(["dashboard"])
    assert "attnsim[dashboard]" in capsys.readouterr().err

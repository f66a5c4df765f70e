"""Files to take away: the ranking as JSON, and a report, at addresses that hold the whole state."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Response
from flask import request as http_request

from simulator.dashboard.answers import find_answer
from simulator.dashboard.checks import find_problems
from simulator.dashboard.state import State
from simulator.report import write_comparison_report
from traces.errors import InputError

if TYPE_CHECKING:
    from flask import Flask


def add_exports(server: Flask) -> None:
    """Add the two addresses."""
    server.add_url_rule("/export.json", "export_json", export_json)
    server.add_url_rule("/export.html", "export_html", export_html)


def export_json() -> Response:
    """What ``attnsim compare --json`` writes for the state."""
    try:
        answer = find_answer(_state())
    except InputError as error:
        return _refusal(error)
    text = json.dumps([each.to_json() for each in answer.outcomes], indent=2, allow_nan=False) + "\n"
    return _download(text, "application/json", "attnsim.json")


def export_html() -> Response:
    """A report of the ranking, with the timeline of the schedule that is looked at."""
    try:
        answer = find_answer(_state())
    except InputError as error:
        return _refusal(error)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        write_comparison_report(path, answer.outcomes, answer.shown)
        return _download(path.read_text(encoding="utf-8"), "text/html", "attnsim.html")


def _state() -> State:
    state = State.from_query(http_request.query_string.decode())
    problems = find_problems(state)
    if problems:
        raise InputError("; ".join(each.message for each in problems))
    return state


def _download(text: str, kind: str, name: str) -> Response:
    return Response(text, mimetype=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _refusal(error: InputError) -> Response:
    return Response(error.message + "\n", status=400, mimetype="text/plain")

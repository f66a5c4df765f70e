"""What a user does to the dashboard, run in a fresh process: ``python -m benchmarks.dashboard_cases NAME QUERY``.

NAME is a slider, ``schedule`` (another one is looked at), ``first`` (the page opens) or ``map`` (a crossover map). But
for the last two, the page of QUERY has been answered before, as it has for a user.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from typing import Any

from plotly.utils import PlotlyJSONEncoder

from simulator.dashboard.answers import find_answer
from simulator.dashboard.app import update_page
from simulator.dashboard.crossings import Crossings
from simulator.dashboard.form import fill_form
from simulator.dashboard.panels import crossover_values
from simulator.dashboard.state import PARTS, State
from simulator.planning.runners import Here

NOTCHES = ("1.414", "2", "0.5", "0.25")


def answer_s(state: State) -> float:
    """Processor seconds from the form to what is sent to the page."""
    begin = time.process_time()
    *fields, kept, _ = fill_form(state.query)
    _sent(update_page(*fields, kept))
    return time.process_time() - begin


def map_s(state: State) -> float:
    """Processor seconds of a crossover map, all of it in this process."""
    begin = time.process_time()
    _sent(crossover_values(Crossings(Here()), state))
    return time.process_time() - begin


def run(name: str, state: State) -> float:
    """Seconds of a case, the slowest of those that a user may meet."""
    if name == "map":
        return map_s(state)
    first_s = answer_s(state)
    if name in PARTS:
        return max(answer_s(replace(state, **{name: factor})) for factor in NOTCHES)
    if name == "schedule":
        return max(answer_s(replace(state, schedule=each.schedule)) for each in find_answer(state).results)
    return first_s


def _sent(values: Any) -> str:
    return json.dumps(values, cls=PlotlyJSONEncoder)


if __name__ == "__main__":
    print(json.dumps({"seconds": run(sys.argv[1], State.from_query(sys.argv[2]))}))

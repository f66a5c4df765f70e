"""A state simulated: every schedule ranked, and one of them with its timeline.

The ranking does not depend on which schedule is looked at, so it is kept for the next look.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from simulator.compare import compare
from simulator.dashboard.state import State
from simulator.planning.pareto import pareto_front
from simulator.recorded import Recordings
from simulator.result import Refused, SimulationResult
from simulator.simulate import simulate
from traces.errors import InputError
from traces.garbage import set_apart

RECORDINGS = Recordings()
"""Of all states: a slider changes costs only."""

Outcomes = tuple[SimulationResult | Refused, ...]


@dataclass(frozen=True)
class Answer:
    """What a state comes to.

    Attributes
    ----------
    outcomes : of all schedules, as `compare` ranks them.
    shown : the schedule that is looked at, with its timeline and memory.
    """

    state: State
    outcomes: Outcomes
    shown: SimulationResult

    @property
    def results(self) -> list[SimulationResult]:
        """Schedules that ran."""
        return [each for each in self.outcomes if isinstance(each, SimulationResult)]

    @property
    def front(self) -> list[int]:
        """Indices of the results on the front of time and memory, exact ones alone."""
        exact = [i for i, each in enumerate(self.results) if each.exact]
        rows = [[self.results[i].time_s, self.results[i].peak_memory_bytes] for i in exact]
        return [exact[i] for i in pareto_front(rows)]

    @property
    def capacity_bytes(self) -> int:
        """Memory of a GPU for tensors."""
        return _capacity_bytes(replace(self.state, schedule="", measured=""))


@lru_cache(maxsize=64)
def find_answer(state: State) -> Answer:
    """Simulate a state that `checks.find_problem` has nothing against.

    Raises
    ------
    InputError
        Where no schedule can run, or not the one that is looked at.
    """
    outcomes = _rank(replace(state, schedule="", measured=""))
    results = [each for each in outcomes if isinstance(each, SimulationResult)]
    if not results:
        raise InputError(_why_none(outcomes))
    best = next((each for each in results if each.exact), results[0])
    names = {each.schedule: each for each in results}
    chosen = state.schedule if state.schedule in names else best.schedule
    return Answer(state, outcomes, _look(state, chosen))


def _why_none(outcomes: Outcomes) -> str:
    """Each reason with the schedules that it is one against, a line each; a reason against all alone."""
    against: dict[str, list[str]] = {}
    for each in outcomes:
        if isinstance(each, Refused):
            against.setdefault(each.reason, []).append(each.schedule.partition(":")[0])
    if len(against) == 1:
        return next(iter(against))
    lines = [f"{', '.join(dict.fromkeys(names))}: {reason}" for reason, names in against.items()]
    return "\n".join(["no schedule can run", *lines])


@lru_cache(maxsize=64)
def _rank(state: State) -> Outcomes:
    made = RECORDINGS.made
    outcomes = tuple(compare(state.request(timeline=False), recordings=RECORDINGS))
    if RECORDINGS.made > made:
        set_apart()
    return outcomes


def _look(state: State, schedule: str) -> SimulationResult:
    return simulate(state.request(schedule=schedule, timeline=True), recordings=RECORDINGS)


@lru_cache(maxsize=64)
def _capacity_bytes(state: State) -> int:
    return state.request().resolve().room_bytes

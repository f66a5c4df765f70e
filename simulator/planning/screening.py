"""Which candidates of a deep model are simulated whole, and in which order: a first look (`looks`) at each says so.

    out of memory     its least memory, in closed form (`bounds`), or what a look finds, is more than a GPU has
    too slow          a look that is past `SLACK` times the N-th best estimate so far ends there
    refined           with what operations take from each other, which looks do not see and which only adds to a time:
                      by estimate, until the N-th best refined is better than the next estimate
    whole             by estimate, until the N-th best is better than the next estimate by more than a margin

Looks are taken in waves of `WAVE` candidates, those with few context parallel ranks first: they are recorded quickest
and usually fast, so that there soon is a time to beat. Candidates that share schedule and grid go together, to one
process, where what they share is priced once. Two mechanisms, whose ranks all send to all others in ways of their own,
are not looked at between very many ranks unless they are asked for: that takes minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from cost_models.models import ModelShape
from simulator.planning.bounds import least_memory_bytes
from simulator.planning.looks import Look, refine_look, take_looks
from simulator.planning.objective import Price, key, measures
from simulator.planning.points import Outcome, Point
from simulator.planning.runners import Runner
from simulator.planning.space import Candidate
from simulator.request import ResolvedRequest
from simulator.schedules import parse_schedule
from simulator.steps.record import plan_of
from traces.display import format_bytes

FEWEST_LAYERS = 4
"""Layers per stage from which a first look is cheaper."""

WAVE = 64
TOGETHER = 8
"""Most candidates of a wave that one process looks at in one go."""

SLACK = 2.0
"""How many times the N-th best time a candidate may take and still be looked at, or simulated, to its end."""

MARGIN = 0.004
MARGIN_OF_MICROBATCHES = 0.01
"""How far, of itself, an estimate may be from the whole simulation; found: 0.35 %, and 0.8 % with microbatches."""

MOST_CONTEXT = {"magi": 32, "lightseq": 32}
"""Context parallel ranks up to which these are looked at unasked."""

Estimate = dict[str, float]


class Screening:
    """Candidates looked at.

    Parameters
    ----------
    resolved : the question.
    base : what all points have in common.
    runner : takes the looks.
    objective, top, price : as of the plan.
    tell : called with candidates done and their number.
    asked : whether the user listed the schedules.
    """

    def __init__(
        self, resolved: ResolvedRequest, base: Point, runner: Runner, objective: str, top: int, price: Price | None,
        tell: Callable[[int, int], None], *, asked: bool = False,
    ) -> None:  # fmt: skip
        assert resolved.model is not None
        self._resolved, self._base, self._model, self._runner = resolved, base, resolved.model, runner
        self._objective, self._top, self._price, self._tell, self._asked = objective, top, price, tell, asked
        self._room = int(resolved.profile.usable_memory_bytes / resolved.allocator_slack)
        self._least: dict[str, int] = {}
        self.looked: dict[str, Candidate] = {}
        self.estimates: dict[str, Estimate] = {}
        self.reasons: dict[str, str] = {}

    def run(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Candidates to simulate whole, in this order; `reasons` has the others."""
        deep = [each for each in candidates if is_deep(each, self._model)]
        for each in deep:
            reason = self._reason_before(each)
            if reason:
                self.reasons[str(each)] = reason
        left = sorted((each for each in deep if str(each) not in self.reasons), key=self._order)
        for first in range(0, len(left), WAVE):
            self._look(left[first : first + WAVE], len(deep) - len(left) + first, len(deep))
        if self._resolved.request.interference and self._objective != "memory":
            self._refine()
        shallow = [each for each in candidates if not is_deep(each, self._model)]
        return shallow + sorted((each for each in left if str(each) in self.estimates), key=self._by_estimate)

    def _reason_before(self, candidate: Candidate) -> str | None:
        """Why it is not even looked at."""
        mechanism = str(candidate.options["schedule"]).partition(":")[0]
        most = MOST_CONTEXT.get(mechanism)
        if most is not None and self._context(candidate) > most and not self._asked:
            return f"{mechanism} is not looked at between more than {most} ranks unless --over schedule= lists it"
        if self._resolved.request.pass_ not in (None, "step"):
            return None
        request = replace(self._resolved.request, **candidate.options)
        schedule = parse_schedule(str(candidate.options["schedule"]))
        plan = plan_of(schedule, replace(self._resolved, request=request), self._model)
        least = self._least[str(candidate)] = least_memory_bytes(plan)
        return f"out of memory: needs at least {format_bytes(least)}" if least > self._room else None

    def _context(self, candidate: Candidate) -> int:
        """Context parallel ranks."""
        options = candidate.options
        others = options.get("tp", 1) * options.get("dp", 1) * options.get("pp", 1)
        return int(self._resolved.topology.n_ranks // others)

    def _order(self, candidate: Candidate) -> tuple[int, str, str]:
        return self._context(candidate), _group(candidate), str(candidate)

    def _look(self, wave: Sequence[Candidate], done: int, total: int) -> None:
        limit_s = self._limit_s()
        together = list(_together(wave))
        looks = [[self._look_at(each, limit_s) for each in group] for group in together]
        for index, outcomes in self._runner.map(take_looks, looks):
            for candidate, outcome in zip(together[index], outcomes, strict=True):
                self._keep(candidate, outcome)
            done += len(outcomes)
            self._tell(done, total)

    def _look_at(self, candidate: Candidate, limit_s: float | None) -> Look:
        return Look({**self._base, **candidate.options}, self._model, int(candidate.options.get("pp", 1)), limit_s)

    def _keep(self, candidate: Candidate, outcome: Outcome) -> None:
        name = str(candidate)
        if "reason" in outcome:
            self.reasons[name] = outcome["reason"]
            return
        # A peak is the largest of several moments, each a line in the layers: the line through two may be below it.
        peak = max(outcome["peak_memory_bytes"], self._least.get(name, 0))
        if peak > self._room:
            needed = format_bytes(peak)
            self.reasons[name] = f"out of memory: needs {needed}, estimated from one and two layers per stage"
        else:
            self.looked[name] = candidate
            self.estimates[name] = measures({**outcome, "peak_memory_bytes": peak}, self._price)

    def _limit_s(self) -> float | None:
        """Time beyond which a look ends; memory is no question of time."""
        if len(self.estimates) < self._top or self._objective == "memory":
            return None
        return SLACK * sorted(each["time_s"] for each in self.estimates.values())[self._top - 1]

    def _refine(self) -> None:
        """Estimates with interference of those that can be among the best."""
        refined: list[float] = []
        ranked = sorted(self.looked.values(), key=self._by_estimate)
        for first in range(0, len(ranked), 2 * self._top):
            wave = ranked[first : first + 2 * self._top]
            if len(refined) >= self._top and sorted(refined)[self._top - 1] <= self._by_estimate(wave[0])[0]:
                break
            for index, outcome in self._runner.map(refine_look, [self._look_at(each, None) for each in wave]):
                if "time_s" in outcome:
                    name = str(wave[index])
                    peak = self.estimates[name]["peak_memory_bytes"]
                    self.estimates[name] = measures({**outcome, "peak_memory_bytes": peak}, self._price)
                    refined.append(key(self._objective, self.estimates[name]))

    def _by_estimate(self, candidate: Candidate) -> tuple[float, str]:
        return key(self._objective, self.estimates[str(candidate)]), str(candidate)

    def is_beaten(self, candidate: Candidate, to_beat: float) -> bool:
        """Whether it cannot be better than a value of the objective, whatever its estimate is wrong by."""
        if str(candidate) not in self.estimates:
            return False
        estimate = key(self._objective, self.estimates[str(candidate)])
        margin = MARGIN if self._resolved.request.microbatches == 1 else MARGIN_OF_MICROBATCHES
        return estimate - margin * abs(estimate) > to_beat


def is_deep(candidate: Candidate, model: ModelShape) -> bool:
    """Whether it has layers enough, all alike."""
    alike = not (model.moe and model.moe.first_dense)
    return alike and int(model.layers // candidate.options.get("pp", 1)) >= FEWEST_LAYERS


def _group(candidate: Candidate) -> str:
    """Schedule and grid."""
    options: Any = candidate.options
    return " ".join(str(options.get(name, "")) for name in ("tp", "dp", "pp", "schedule", "kernel"))


def _together(wave: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    """Neighbours that share schedule and grid, not too many."""
    group: list[Candidate] = []
    for each in wave:
        if group and (_group(each) != _group(group[0]) or len(group) == TOGETHER):
            yield group
            group = []
        group.append(each)
    if group:
        yield group

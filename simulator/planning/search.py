"""Search among candidates of deep models, by branch and bound: what nobody can still want is never simulated whole.

    best     as long as one of the N candidates that may be best is not whole, it is looked at more closely
    front    the same for every candidate that may be on the front of time and memory, within `SLACK` times the N-th
             best time

"May be" by lower bounds of time and memory (`standing`), which every stage raises. Both end when all that may be wanted
are whole, so that best and front are those of whole simulations of all. Steps are of a fixed size, so that the answer
does not depend on where, or how fast, work is done.

Least times are found in waves, those with few context parallel ranks first: they are recorded quickest and usually
fast, so that of the others it soon is enough to know that they are slow. Two mechanisms, whose ranks all send to all
others in ways of their own, are not taken between very many ranks unless they are asked for: that takes minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cost_models.models import ModelShape
from simulator.planning.least_memory import least_memory_bytes
from simulator.planning.least_time import Bounded, least_times_s
from simulator.planning.looks import Look, refine_look, take_look
from simulator.planning.objective import Price
from simulator.planning.pareto import pareto_front
from simulator.planning.points import Outcome, Point, run_point
from simulator.planning.runners import Runner
from simulator.planning.space import Candidate
from simulator.planning.standing import MARGIN, MARGIN_OF_MICROBATCHES, STAGES, Key, Standing
from simulator.resolved import ResolvedRequest
from simulator.schedules import parse_schedule
from simulator.steps.record import plan_of
from traces.display import format_bytes
from traces.garbage import collector_paused

FEWEST_LAYERS = 4
"""Layers per stage from which a model is deep."""

FEWEST_LOOKED_AT = 10
"""Layers per stage from which looks are cheaper than simulations."""

WAVE = 16
"""Pairs of schedule and grid whose least times are found together."""

AT_ONCE = 8
"""Most candidates that are looked at in one step."""

SLACK = 2.0
"""How many times the N-th best time a candidate may take and still be on the front."""

MOST_CONTEXT = {"magi": 32, "lightseq": 32}
"""Context parallel ranks up to which these are taken unasked."""

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Wanted:
    """What a search is for.

    Parameters
    ----------
    objective, top, price : as of the plan.
    asked : whether the user listed the schedules.
    cache_folder : of whole simulations.
    """

    objective: str
    top: int
    price: Price | None
    asked: bool = False
    cache_folder: str | None = None


class Search:
    """Candidates of deep models.

    Parameters
    ----------
    resolved : the question.
    base : what all points have in common.
    runner : does the work.
    wanted : best, and how many.
    tell : called with what is done, how much of it, and of how much.

    Attributes
    ----------
    standings : candidates that can run, as far as is known, by name.
    reasons : why others cannot.
    """

    def __init__(self, resolved: ResolvedRequest, base: Point, runner: Runner, wanted: Wanted, tell: Tell) -> None:
        assert resolved.model is not None
        self._resolved, self._base, self._model, self._runner = resolved, base, resolved.model, runner
        self._wanted, self._tell = wanted, tell
        self._inputs = {**resolved.inputs, "pass": resolved.request.pass_ or "step"}
        self._margin = MARGIN if resolved.request.microbatches == 1 else MARGIN_OF_MICROBATCHES
        self.standings: dict[str, Standing] = {}
        self.reasons: dict[str, str] = {}

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Standing]:
        """Candidates simulated whole, as they are done."""
        for each in candidates:
            self._name(each)
        self._bound()
        while closer := [each for each in self._best() if not each.is_whole]:
            yield from self._closer(self._with_next(closer))
        while closer := [each for each in self._front() if not each.is_whole]:
            yield from self._closer(closer[:AT_ONCE])

    # -- before anything is recorded ---------------------------------------------------------------------------------

    def _name(self, candidate: Candidate) -> None:
        mechanism = str(candidate.options["schedule"]).partition(":")[0]
        most = MOST_CONTEXT.get(mechanism)
        if most is not None and self._context(candidate) > most and not self._wanted.asked:
            reason = f"{mechanism} is not looked at between more than {most} ranks unless --over schedule= lists it"
            self.reasons[str(candidate)] = reason
            return
        least = self._least_bytes(candidate) if self._resolved.request.pass_ in (None, "step") else 0
        if least > self._resolved.room_bytes:
            self.reasons[str(candidate)] = f"out of memory: needs at least {format_bytes(least)}"
            return
        self.standings[str(candidate)] = Standing(candidate, self._inputs, peak_bytes=least)

    def _least_bytes(self, candidate: Candidate) -> int:
        request = replace(self._resolved.request, **candidate.options)
        schedule = parse_schedule(str(candidate.options["schedule"]))
        return least_memory_bytes(plan_of(schedule, replace(self._resolved, request=request), self._model))

    def _context(self, candidate: Candidate) -> int:
        """Context parallel ranks."""
        options = candidate.options
        others = options.get("tp", 1) * options.get("dp", 1) * options.get("pp", 1)
        return int(self._resolved.topology.n_ranks // others)

    # -- least times -------------------------------------------------------------------------------------------------

    def _bound(self) -> None:
        if self._resolved.request.pass_ == "decode":
            return
        together: dict[tuple[int, str], list[Standing]] = {}
        for each in self.standings.values():
            together.setdefault((self._context(each.candidate), _group(each.candidate)), []).append(each)
        groups = [together[name] for name in sorted(together)]
        for first in range(0, len(groups), WAVE):
            wave, limit_s = groups[first : first + WAVE], self._limit_s()
            asked = [Bounded([self._point(each) for each in group], limit_s) for group in wave]
            for index, least_s in self._runner.map(least_times_s, asked):
                for each, time_s in zip(wave[index], least_s, strict=True):
                    each.time_s = time_s
            self._tell("least times", min(first + WAVE, len(groups)), len(groups))

    def _limit_s(self) -> float | None:
        """Time beyond which nobody can be among the best, most likely, nor on the front."""
        times = sorted(each.time_s for each in self.standings.values() if each.time_s)
        return SLACK * times[self._wanted.top - 1] if len(times) >= self._wanted.top else None

    def _point(self, standing: Standing) -> dict[str, Any]:
        return {**self._base, **standing.candidate.options}

    # -- closer looks ------------------------------------------------------------------------------------------------

    def _with_next(self, standings: Sequence[Standing]) -> list[Standing]:
        """First looks are cheap: where there are any, those that come next are taken too."""
        chosen = list(standings[:AT_ONCE])
        if all(self._next_stage(each) != "looked" for each in chosen):
            return chosen
        taken = {each.name for each in chosen}
        others = [each for each in self.standings.values() if each.stage == "named" and each.name not in taken]
        return [*chosen, *sorted(others, key=self._key)[: AT_ONCE - len(chosen)]]

    def _closer(self, standings: Sequence[Standing]) -> Iterator[Standing]:
        """Raise each by a stage; those that are simulated."""
        next_of = [self._next_stage(each) for each in standings]
        jobs = [self._job(*each) for each in zip(standings, next_of, strict=True)]
        outcomes: dict[int, Outcome] = {}
        for index, outcome in self._runner.map(do_job, jobs):
            outcomes[index] = outcome
            if next_of[index] == "whole" and outcome.get("fits"):
                standings[index].simulated(outcome)
                yield standings[index]
        for index, outcome in sorted(outcomes.items()):
            self._keep(standings[index], next_of[index], outcome)
        self._tell("candidates", self._settled(), len(self.standings) + len(self.reasons))

    def _next_stage(self, standing: Standing) -> str:
        """Interference only adds to a time, and is no question of memory."""
        if self._model.layers // self._parts(standing) < FEWEST_LOOKED_AT:
            return "whole"
        following = STAGES[STAGES.index(standing.stage) + 1]
        refines = self._resolved.request.interference and self._wanted.objective != "memory"
        return "whole" if following == "refined" and not refines else following

    def _job(self, standing: Standing, stage: str) -> Job:
        look = Look(self._point(standing), self._model, self._parts(standing))
        return Job(look, stage, self._wanted.cache_folder)

    def _parts(self, standing: Standing) -> int:
        """Into how many parts a pipeline cuts the layers."""
        return int(standing.candidate.options.get("pp", 1)) * self._resolved.request.virtual_stages

    def _keep(self, standing: Standing, stage: str, outcome: Outcome) -> None:
        reason, peak_bytes = outcome.get("reason"), outcome.get("peak_memory_bytes", 0)
        fits = outcome.get("fits", peak_bytes <= self._resolved.room_bytes)
        if reason is None and not fits:
            estimated = "" if stage == "whole" else ", estimated from two and three layers per stage"
            reason = f"out of memory: needs {format_bytes(peak_bytes)}{estimated}"
        if reason is not None:
            self.reasons[standing.name] = reason
            del self.standings[standing.name]
        elif stage != "whole":
            standing.looked(outcome, stage, self._margin)

    def _settled(self) -> int:
        """Candidates of which no more has to be known to name the best."""
        whole = sorted(self._key(each) for each in self.standings.values() if each.is_whole)
        if len(whole) < self._wanted.top:
            return len(whole) + len(self.reasons)
        to_beat = whole[self._wanted.top - 1]
        beaten = [each for each in self.standings.values() if not each.is_whole and self._key(each) > to_beat]
        return len(whole) + len(beaten) + len(self.reasons)

    # -- what may be wanted ------------------------------------------------------------------------------------------

    def _key(self, standing: Standing) -> Key:
        return standing.key(self._wanted.objective, self._wanted.price)

    def _best(self) -> list[Standing]:
        return sorted(self.standings.values(), key=self._key)[: self._wanted.top]

    def _front(self) -> list[Standing]:
        """Cost is in proportion to time, so that two columns are enough."""
        best = self._best()
        limit_s = SLACK * max((each.time_s for each in best), default=0.0)
        ranked = sorted(self.standings.values(), key=self._key)
        near = [each for each in ranked if each.time_s <= limit_s]
        return [near[index] for index in pareto_front([[each.time_s, each.peak_bytes] for each in near])]


@dataclass(frozen=True)
class Job:
    """A look, or a whole simulation."""

    look: Look
    stage: str
    cache_folder: str | None = None


def do_job(job: Job) -> Outcome:
    """What comes of it."""
    with collector_paused():
        if job.stage == "looked":
            return take_look(job.look)
        if job.stage == "refined":
            return refine_look(job.look)
        return run_point(job.look.point, cache_folder=job.cache_folder)


def _group(candidate: Candidate) -> str:
    """What the attention of a layer depends on."""
    own = "zero", "checkpoint", "optimizer"
    others = {name: value for name, value in candidate.options.items() if name not in own}
    return str(Candidate(others))


def is_deep(candidate: Candidate, model: ModelShape) -> bool:
    """Whether it has layers enough, all alike."""
    alike = not (model.moe and model.moe.first_dense)
    return alike and int(model.layers // candidate.options.get("pp", 1)) >= FEWEST_LAYERS
